"""Records of what models have seen: kept in the metadata of tables, and the checks on them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.core.errors import UserError
from hms_dist.results.lineage import (
    METADATA_KEY,
    ModelRecord,
    Source,
    check_out_of_fold,
    check_unseen,
    named_sources,
    read_sources,
    with_sources,
)


def record(run, patients, *, fold=0, learnt_from=()):
    return ModelRecord(
        run=run, weights="ab", shards="cd", fold=fold, num_folds=5, seed=3, patients=frozenset(patients),
        learnt_from=tuple(learnt_from),
    )  # fmt: skip


def random_tree(rng, depth=3):
    patients = rng.choice(100000, 5, replace=False).tolist()
    below = [random_tree(rng, depth - 1) for _ in range(rng.integers(4))] if depth else []
    return record(f"run{rng.random()}", patients, learnt_from=below)


def patients_of(tree):
    return set(tree.patients).union(*(patients_of(below) for below in tree.learnt_from))


def test_a_model_has_seen_what_its_teachers_saw(rng):
    for _ in range(20):
        tree = random_tree(rng)
        assert tree.seen == patients_of(tree)


def test_sources_live_in_a_tables_metadata_beside_what_was_there(tmp_path, rng):
    sources = tuple(Source(model=random_tree(rng), fold=fold) for fold in (None, 0, 4))
    frame = pd.DataFrame({"key": ["a", "b"], "x": [1.5, 2.5]})
    table = with_sources(pa.Table.from_pandas(frame, preserve_index=False), [*sources, *sources])
    pq.write_table(table, tmp_path / "t.parquet")
    assert read_sources(tmp_path / "t.parquet") == sources
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)


def test_a_csv_and_a_plain_table_name_none(tmp_path):
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "t.parquet")
    assert read_sources(tmp_path / "t.parquet") == ()
    assert read_sources(tmp_path / "t.csv") == ()
    with pytest.raises(UserError, match=r"t.parquet: does not record which models made it, because; write it with"):
        named_sources(tmp_path / "t.parquet", "because")


@pytest.mark.parametrize("content", [b"{", b"[1]", b'[{"fold": 1, "model": {"run": "r"}}]', b"3"])
def test_damaged_metadata_is_named(tmp_path, content):
    table = pa.table({"x": [1]}).replace_schema_metadata({METADATA_KEY: content})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t.parquet: the record of its models is damaged \(.*\); predict again"):
        read_sources(tmp_path / "t.parquet")


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match=r"t.parquet: no such file; check the path"):
        read_sources(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no table at all")
    with pytest.raises(UserError, match=r"t.parquet: not a readable table"):
        read_sources(tmp_path / "t.parquet")


def test_a_leak_names_run_fold_count_and_the_way_it_took():
    grandparent = record("grandparent", [5, 6], fold=None)
    parent = record("parent", [1], fold=2, learnt_from=[grandparent])
    child = record("child", [2], fold=1, learnt_from=[record("clean", [9]), parent])
    check_unseen("file", [child], np.array([7, 8]), "of fold 1")
    with pytest.raises(UserError) as caught:
        check_unseen("file", [record("clean", [9]), child], np.array([5, 5, 6, 7]), "of fold 1")
    assert str(caught.value) == (
        "file: its model child (fold 1 of 5) has seen 2 of the 3 patients of fold 1, through grandparent (no "
        "validation fold); use models that held them out"
    )


def test_each_fold_is_held_against_the_models_that_made_it(tmp_path):
    patients, folds = np.array([1, 1, 2, 3]), np.array([0, 0, 1, 1])
    made_0, made_1 = Source(model=record("a", [2, 3]), fold=0), Source(model=record("b", [1]), fold=1)
    check_out_of_fold(tmp_path, [made_0, made_1], patients, folds)
    with pytest.raises(
        UserError, match=r"its model a \(fold 0 of 5\) has seen 2 of the 2 patients that it predicts as"
    ):
        check_out_of_fold(tmp_path, [Source(model=made_0.model), made_1], patients, folds)
    with pytest.raises(UserError, match="does not record which model made the rows of fold 1"):
        check_out_of_fold(tmp_path, [made_0], patients, folds)
    with pytest.raises(UserError, match="1 of 4 rows have no fold, so a model may have trained on them"):
        check_out_of_fold(tmp_path, [made_0, made_1], patients, np.array([0, 0, 1, -1]))
