"""Fits and scores with labels of a table, and with tables of models that recorded nothing."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.label_rows import read_label_rows
from hms_dist.predict.ensemble import Ensemble, apply, fit
from hms_dist.predict.members import read_labelled
from hms_dist.predict.score import Score, scored
from hms_dist.predict.stack import Stack
from hms_dist.predict.stack import run as stack
from hms_dist.results.lineage import read_sources
from hms_dist.results.metrics import kaggle_kl

OOF = Path(__file__).parents[2].parent / "shared/data/oof"


def foreign(index, path: Path, rng: np.random.Generator, folds: np.ndarray | None = None) -> Path:
    """Another program's table: no record of its models."""
    found = rng.dirichlet(np.ones(6), len(index)) * 0.2 + 0.8 * index.targets
    table = index.frame[["key", "eeg_id", "eeg_sub_id"]].assign(fold=index.folds(3) if folds is None else folds)
    table[list(HMS.classes)] = found / found.sum(axis=1, keepdims=True)
    table.to_parquet(path, index=False)
    return path


@pytest.fixture
def label_table(index, tmp_path):
    """The labels of the shard set as a table, by default of votes."""

    def make(*, shares: bool = False, num_votes: bool = False) -> Path:
        frame = index.frame[["eeg_id", "eeg_sub_id", "patient_id"]].astype("int64")
        values = index.targets if shares else index.votes
        frame[list(HMS.vote_columns)] = values
        if num_votes:
            frame["num_votes"] = index.num_voters
        frame.sample(frac=1, random_state=0).to_csv(tmp_path / "labels.csv", index=False)
        return tmp_path / "labels.csv"

    return make


def test_a_table_gives_the_fit_of_the_shard_set(index, label_table, shard_set, out_of_fold, tmp_path, rng) -> None:
    tables = tuple(out_of_fold(name, rng.dirichlet(np.ones(6), len(index))) for name in ("a", "b"))
    results = []
    for labels in (str(shard_set), str(label_table()), str(label_table(shares=True))):
        command = Ensemble(predictions=tables, out=tmp_path / "out.parquet", weights="fit", labels=labels)
        results.append(fit(command, read_labelled(tables, labels)))
    for found in results[1:]:
        assert found["weights"] == pytest.approx(results[0]["weights"], abs=1e-6)
        assert found["kl"]["fitted_cross_validated"] == pytest.approx(results[0]["kl"]["fitted_cross_validated"])


def test_shares_score_as_their_votes_and_by_votes_if_their_number_is_given(index, label_table, tmp_path, rng) -> None:
    path = foreign(index, tmp_path / "p.parquet", rng)
    by_votes = scored(Score(predictions=path, labels=label_table(), num_draws=0))
    with_number = scored(Score(predictions=path, labels=label_table(shares=True, num_votes=True), num_draws=0))
    assert with_number["strata"].keys() == by_votes["strata"].keys()
    for name, entry in by_votes["strata"].items():
        assert with_number["strata"][name]["kl"] == pytest.approx(entry["kl"])
    without = scored(Score(predictions=path, labels=label_table(shares=True), num_draws=0))
    assert without["strata"].keys() == {"all"}
    assert without["kl"] == pytest.approx(by_votes["kl"])


def test_tables_that_name_no_models_need_the_users_word_which_is_recorded(
    index, label_table, tmp_path, rng, caplog
) -> None:
    tables = tuple(foreign(index, tmp_path / f"{name}.parquet", rng) for name in ("a", "b"))
    labels = str(label_table())
    with pytest.raises(UserError, match=r"a.parquet: does not record which models made it.*--out_of_fold stated"):
        read_labelled(tables, labels)
    command = Ensemble(
        predictions=tables, out=tmp_path / "out.parquet", weights="fit", labels=labels, out_of_fold="stated"
    )  # fmt: skip
    fit(command, read_labelled(tables, labels, stated=True))
    sources = read_sources(command.out)
    stated = {(Path(source.model.run).name, source.fold) for source in sources if source.model.stated}
    assert stated == {(f"{name}.parquet", fold) for name in ("a", "b") for fold in range(3)}
    for source in sources:
        held_out = set(index.ids("patient_id")[index.folds(3) == source.fold])
        assert not held_out & source.model.patients
    found = scored(Score(predictions=command.out, labels=Path(labels), num_draws=0))
    assert found["num_rows_held_out"] == len(index)
    assert any("a.parquet is stated by its user, not recorded, to be out of fold" in line for line in found["warnings"])
    apply(Ensemble(predictions=tables, out=tmp_path / "again.parquet", weights=str(tmp_path / "out.json")))
    stack(Stack(predictions=tables, out=tmp_path / "stack", labels=labels, out_of_fold="stated"))
    assert any(source.model.stated for source in read_sources(tmp_path / "stack/predictions.parquet"))


def test_a_statement_does_not_hide_what_the_tables_show(index, label_table, tmp_path, rng) -> None:
    labels = str(label_table())
    split = np.arange(len(index)) % 3  # rows of one patient in several folds
    path = foreign(index, tmp_path / "a.parquet", rng, folds=split)
    with pytest.raises(UserError, match=r"use models of one split|has seen"):
        read_labelled((path,), labels, stated=True)
    path = foreign(index, tmp_path / "b.parquet", rng, folds=np.full(len(index), -1))
    with pytest.raises(UserError, match="rows have no fold"):
        read_labelled((path,), labels, stated=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.drop(columns="patient_id"), "column patient_id is missing"),
        (lambda frame: frame.drop(columns=list(HMS.vote_columns)), "the rows have no votes"),
        (lambda frame: frame.drop(columns="eeg_sub_id"), "eeg_sub_id 0 appears twice"),
        (lambda frame: frame.assign(**dict.fromkeys(HMS.vote_columns, 0.0)), "row 2: no votes at all"),
        (lambda frame: frame.assign(lpd_vote=-0.5), "row 2, column lpd_vote: expected a number of at least 0"),
        (lambda frame: frame.iloc[:0], "no rows"),
    ],
)
def test_impossible_label_tables_are_refused(label_table, change, message) -> None:
    path = label_table(shares=True)
    change(pd.read_csv(path)).to_csv(path, index=False)
    with pytest.raises(UserError, match=message):
        read_label_rows(path, HMS)


def test_labels_must_cover_the_tables(index, label_table, tmp_path, rng) -> None:
    path, labels = foreign(index, tmp_path / "a.parquet", rng), label_table()
    pd.read_csv(labels).iloc[3:].to_csv(labels, index=False)
    with pytest.raises(UserError, match=r"labels.csv: no row for .* of .*a.parquet \(3 such rows\); add their labels"):
        read_labelled((path,), str(labels), stated=True)


def test_an_empty_cell_is_unknown(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("eeg_id,patient_id,a_vote,b_vote\n1,1,1,\n2,2,,0\n")
    table = read_label_rows(tmp_path / "t.csv", Dataset(name="lab", classes=("a", "b"), target="yes_no"))
    np.testing.assert_array_equal(table.targets, [[1, np.nan], [np.nan, 0]])
    assert table.num_votes.tolist() == [1, 1]


@pytest.mark.real_data
@pytest.mark.skipif(not OOF.is_dir(), reason="no predictions beside the checkout (../shared/data/oof)")
@pytest.mark.parametrize(("method", "most"), [(None, 0.4720), ("mean", 0.4725)])
def test_eight_real_models_fitted_on_four_folds_beat_their_mean_on_the_fifth(tmp_path, method, most) -> None:
    """The plain mean has .4823; a plain fit of weights on the simplex .4716."""
    tables = tuple(sorted(OOF.glob("model_*.parquet")))
    labels = str(OOF / "labels.csv")
    command = Ensemble(
        predictions=tables, out=tmp_path / "out.parquet", weights="fit", labels=labels, out_of_fold="stated",
        method=method,
    )  # fmt: skip
    labelled = read_labelled(tables, labels, stated=True)
    plain = kaggle_kl(labelled.targets, labelled.members.probabilities.mean(axis=0))
    assert plain == pytest.approx(0.4823, abs=5e-5)
    assert fit(command, labelled)["kl"]["fitted_cross_validated"] <= most
