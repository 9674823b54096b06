"""Submissions as pseudo-labels of the rows that they list, by the models that the user states."""

import json

import numpy as np
import pytest

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.pseudolabel import PseudoLabel, run
from hms_dist.results.lineage import Source, check_unseen, read_sources
from hms_dist.results.predictions import read_predictions


@pytest.fixture
def files(index, tmp_path, rng):
    """Two files as the 16th place's code wrote them, in another order than the set's; and their probabilities in the
    set's order."""
    found = rng.dirichlet(np.ones(6), (2, len(index)))
    paths = []
    for number, each in enumerate(found):
        table = index.frame[["eeg_id", "eeg_sub_id"]].copy()
        table[list(HMS.vote_columns)] = each
        paths.append(tmp_path / f"submission_{number}.csv")
        table.sample(frac=1, random_state=rng).to_csv(paths[-1], index=False)
    return paths, found


def pseudolabel(shard_set, tmp_path, *words):
    out = tmp_path / "labels.parquet"
    given = ["--shards", shard_set, "--out", out, "--max_votes", 1000, "--max_other", "null", *words]
    run(load(PseudoLabel, [str(word) for word in given]))
    return out


STATED = ("--submissions.name", "the 16th place's ten models")


def test_they_label_the_rows_that_they_list_and_are_recorded_as_stated(files, index, shard_set, tmp_path, capsys):
    paths, found = files
    out = pseudolabel(shard_set, tmp_path, "--predictions", *paths, *STATED)
    table = read_predictions(out)
    assert table["key"].tolist() == index.frame["key"].tolist()
    np.testing.assert_allclose(table[list(CLASSES)], found.mean(axis=0), rtol=1e-9)
    models = [source.model for source in read_sources(out)]
    assert [model.run for model in models] == [
        f"the 16th place's ten models (stated for submission_{number}.csv)" for number in range(2)
    ]
    assert [model.weights for model in models] == [sha256_of(path) for path in paths]
    assert all(model.patients == set(index.ids("patient_id").tolist()) for model in models)
    assert json.loads(capsys.readouterr().out)["validation_folds_unseen"] == {"5": []}
    with pytest.raises(
        UserError, match=r"labels.parquet: its model the 16th place's ten models \(stated for submission_0"
    ):
        check_unseen(str(out), models, index.ids("patient_id")[:1], "of validation fold 0 of 5")


def test_a_stated_fold_is_one_that_they_have_not_seen(files, index, shard_set, tmp_path, capsys):
    also = ("--submissions.fold", 1, "--submissions.num_folds", 3)
    out = pseudolabel(shard_set, tmp_path, "--predictions", *files[0], *STATED, *also)
    models = [source.model for source in read_sources(out)]
    held_out = index.folds(3) == 1
    check_unseen(str(out), models, index.ids("patient_id")[held_out], "of fold 1")
    with pytest.raises(UserError, match="has seen"):
        check_unseen(str(out), models, index.ids("patient_id")[~held_out], "of other folds")
    assert json.loads(capsys.readouterr().out)["validation_folds_unseen"] == {"3": [1]}


def test_tables_with_lineage_can_be_combined_with_them(files, index, shard_set, tmp_path, write, record):
    paths, found = files
    own = write("own.parquet", found[1], [Source(model=record("own", None))])
    out = pseudolabel(shard_set, tmp_path, "--predictions", own, paths[0], *STATED)
    assert [source.model.run for source in read_sources(out)] == ["own", f"{STATED[1]} (stated for submission_0.csv)"]
    np.testing.assert_allclose(read_predictions(out)[list(CLASSES)], found.mean(axis=0), rtol=1e-9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            [],
            "predictions: .*submission_0.csv does not record which models made it; state them with --submissions.name",
        ),
        (["--submissions.name", " "], "submissions.name: expected a few words about the models, found none"),
        ([*STATED, "--submissions.fold", "5"], "submissions.fold: expected 0 to 4 or none, found 5"),
        ([*STATED, "--submissions.num_folds", "1"], "submissions.num_folds: expected 2 to 10, found 1"),
    ],
)
def test_invalid_statements_are_rejected(files, shard_set, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        pseudolabel(shard_set, tmp_path, "--predictions", *files[0], *words)


def test_a_statement_without_such_a_table_is_refused(shard_set, tmp_path):
    with pytest.raises(UserError, match=r"submissions: states what \.csv tables are, and predictions names none"):
        pseudolabel(shard_set, tmp_path, "--predictions", "a.parquet", *STATED)


def test_ambiguous_rows_are_rejected(files, index, shard_set, tmp_path):
    (path, _), _ = files
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[1]]))
    with pytest.raises(UserError, match=r"submission_0.csv: row \d+-\d+ appears twice; expected once"):
        pseudolabel(shard_set, tmp_path, "--predictions", path, *STATED)
    frame = index.frame.drop_duplicates("eeg_id")[["eeg_id"]].copy()
    frame[list(HMS.vote_columns)] = 1 / 6
    frame.to_csv(path, index=False)
    with pytest.raises(
        UserError, match=r"EEG \d+ has several rows in the shard set \(\d+ such EEGs\); a column eeg_su"
    ):
        pseudolabel(shard_set, tmp_path, "--predictions", path, *STATED)
