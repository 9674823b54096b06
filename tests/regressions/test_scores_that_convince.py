"""Scores use rows that the models have not seen, and come with a warning if they are not meaningful."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.datasets import HMS, HMS_CLASSES
from hms_dist.predict.score import Score, scored
from hms_dist.report.page_quality import quality_values
from hms_dist.report.page_scores import Labels, read_scored
from hms_dist.results.lineage import ModelRecord, Source, held_out_rows
from hms_dist.results.metrics import constant_prediction, kaggle_kl, score_warnings
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import read_index


@pytest.fixture
def index(shard_set):
    return read_index(shard_set / "index.parquet")


@pytest.fixture
def write(index, tmp_path):
    def make(name, values, folds=None, sources=()):
        write_predictions(tmp_path / name, prediction_table(index.frame, folds, values), sources)
        return tmp_path / name

    return make


def model_of(index, fold):
    """A model that held out a fold of three."""
    seen = np.unique(index.ids("patient_id")[index.folds(3) != fold]).tolist()
    return ModelRecord(
        run="r", weights="w", shards="", fold=fold, num_folds=3, seed=0, patients=frozenset(seen)
    )  # fmt: skip


def good(index):
    """Better than a constant on every row."""
    return 0.6 * index.targets + 0.4 / 6


@pytest.mark.parametrize("knows", ["folds", "models", "models alone"])
def test_held_out_rows_come_first_and_the_others_apart(index, write, shard_set, knows, caplog):
    mine = index.folds(3) == 1
    values = np.where(mine[:, None], good(index), 0.999 * index.targets + 0.001 / 6)
    sources = () if knows == "folds" else (Source(model=model_of(index, 1), fold=None),)
    folds = None if knows == "models alone" else np.where(mine, 1, -1)
    found = scored(Score(predictions=write("p.parquet", values, folds, sources), labels=shard_set, num_draws=0))
    assert found["rows"] == "held_out"
    assert found["num_rows"] == found["num_rows_held_out"] == mine.sum()
    assert found["kl"] == pytest.approx(kaggle_kl(index.targets[mine], values[mine]))
    assert found["not_held_out"]["num_rows"] == (~mine).sum()
    assert found["not_held_out"]["kl"] == pytest.approx(kaggle_kl(index.targets[~mine], values[~mine]))
    assert f"{(~mine).sum()} of {len(mine)} rows are not scored" in caplog.text
    every = scored(Score(predictions=write("p.parquet", values, folds, sources), labels=shard_set, rows="all"))
    assert (every["rows"], every["num_rows"]) == ("all", len(mine))
    assert "rows are not known to be held out" in every["warnings"][0]


def test_a_fold_does_not_hide_that_a_model_has_seen_its_patients(index, write, shard_set):
    sources = [Source(model=model_of(index, 0), fold=1)]
    path = write("p.parquet", good(index), np.full(len(index), 1), sources)
    found = scored(Score(predictions=path, labels=shard_set, num_draws=0))
    assert found["num_rows_held_out"] == (index.folds(3) == 0).sum()


def test_rows_of_models_that_learnt_from_unknown_tables_count_by_their_folds():
    model = ModelRecord(
        run="r", weights="w", shards="", fold=0, num_folds=3, seed=0, patients=frozenset(), unknown_teacher="t"
    )  # fmt: skip
    found = held_out_rows([Source(model=model)], np.array([0, -1]), np.array([1, 2]))
    assert found.tolist() == [True, False]


def test_a_submission_states_that_nothing_is_known(index, shard_set, recordings, tmp_path, caplog):
    labels = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    rows = index.frame.set_index("key").index.get_indexer(
        [f"{eeg}-{sub}" for eeg, sub in zip(labels["eeg_id"], labels["eeg_sub_id"], strict=True)]
    )
    table = prediction_table(index.frame.iloc[rows], None, good(index)[rows])
    write_predictions(tmp_path / "s.csv", table)
    found = scored(Score(predictions=tmp_path / "s.csv", labels=tmp_path / "labels.csv", num_draws=0))
    assert found["num_rows_held_out"] is None
    assert "does not record which rows its models have seen: they may have trained on all of them" in caplog.text
    assert f"{len(rows)} rows: fewer than 30 are too few" in caplog.text
    assert len(found["warnings"]) == 2


def test_doubts(rng):
    truth = rng.dirichlet(np.ones(6), 60)
    better = 0.5 * truth + 0.5 * constant_prediction(truth)
    assert score_warnings(truth, better, classes=HMS_CLASSES) == []
    assert score_warnings(truth, better, np.repeat([0, 1], 30), classes=HMS_CLASSES) == []
    (line,) = score_warnings(truth, better, np.repeat([0, 1], [31, 29]), classes=HMS_CLASSES)
    assert line == "29 rows in a fold of 2: fewer than 30 are too few to generalise to other patients"
    (line,) = score_warnings(truth, constant_prediction(truth), classes=HMS_CLASSES)
    assert "is no better than" in line
    one = np.roll(np.sort(truth, axis=1), 2, axis=1)
    (line,) = score_warnings(one, 0.5 * one + 0.5 * constant_prediction(one), classes=HMS_CLASSES)
    assert line.startswith("all rows have most votes for lpd")


def test_the_report_does_not_praise_the_calibration_of_a_constant(index, write, shard_set):
    labels = Labels(location=str(shard_set), fingerprint="", index=index, oracle=None)
    useless = read_scored(write("p.parquet", constant_prediction(index.targets)), "useless", labels)
    useful = read_scored(write("q.parquet", good(index), np.zeros(len(index), int)), "useful", labels)
    captions = [caption for caption, _ in quality_values([], [useless, useful], HMS)["calibration"]]
    assert captions[0] == "useless: no better than a constant predictor, so its calibration is not meaningful"
    assert captions[1].startswith("useful: calibration error")
    assert any("no better than" in line for line in useless.score_warnings)
    assert any("does not record which rows" in line for line in useless.score_warnings)
    assert useful.score_warnings == []
    assert len(HMS_CLASSES) == useful.prediction.shape[1]
