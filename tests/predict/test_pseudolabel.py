"""The command `pseudolabel`: its labels against the 16th place's rule, written out."""

import json

import numpy as np
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.pseudolabel import PseudoLabel, run, unsure_eegs
from hms_dist.results.lineage import Source, read_sources
from hms_dist.results.predictions import read_predictions
from hms_dist.stream.rows.overlay import OverlayConfig, overlay_targets
from hms_dist.train.data.leakage import stored_record
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.settings import TrainConfig


def pseudolabel(*words):
    run(load(PseudoLabel, [str(word) for word in words]))


@pytest.fixture
def models(index, record, write, rng):
    """Tables of three models with fold 1, and their predictions."""
    found = rng.dirichlet(np.ones(6), (3, len(index)))
    folds = np.where(index.folds(3) == 1, 1, -1)
    tables = [write(f"{n}.parquet", each, [Source(model=record(f"r{n}", 1))], folds) for n, each in enumerate(found)]
    return tables, found


def options(shard_set, tmp_path, *also):
    return ["--shards", shard_set, "--out", tmp_path / "labels.parquet", *also]


def test_labels_are_the_mean_of_the_models_on_low_vote_rows(models, index, shard_set, tmp_path, capsys):
    bound = int(np.median(index.num_voters))
    also = ["--max_votes", bound, "--max_other", "null"]
    pseudolabel("--predictions", *models[0], *options(shard_set, tmp_path, *also))
    low = np.flatnonzero(index.num_voters <= bound)
    table = read_predictions(tmp_path / "labels.parquet")
    assert table["key"].tolist() == index.frame["key"].iloc[low].tolist()
    np.testing.assert_allclose(table[list(CLASSES)], models[1].mean(axis=0)[low], rtol=1e-12)
    counts = json.loads(capsys.readouterr().out)
    assert (counts["num_models"], counts["num_labelled_rows"], counts["num_dropped_rows"]) == (3, len(low), 0)
    assert counts["validation_folds_unseen"] == {"3": [1]}
    assert {source.model.run for source in read_sources(tmp_path / "labels.parquet")} == {"r0", "r1", "r2"}


def test_an_eeg_goes_whole_if_one_row_is_other(models, index, shard_set, tmp_path, capsys):
    bound, means = int(index.num_voters.max()), models[1].mean(axis=0)
    threshold = float(np.quantile(means[:, 5], 0.9))
    pseudolabel(
        "--predictions", *models[0], *options(shard_set, tmp_path, "--max_votes", bound, "--max_other", threshold)
    )
    eegs = index.ids("eeg_id")
    bad = {eeg for eeg, mean in zip(eegs, means, strict=True) if mean[5] >= threshold}
    expected = [key for key, eeg in zip(index.frame["key"], eegs, strict=True) if eeg not in bad]
    assert read_predictions(tmp_path / "labels.parquet")["key"].tolist() == expected
    counts = json.loads(capsys.readouterr().out)
    assert counts["num_dropped_eegs"] == len(bad) > 0
    assert counts["num_dropped_rows"] == len(index) - len(expected)


def test_the_threshold_itself_drops():
    eegs, others = np.array([1, 1, 2, 3]), np.array([0.8, 0.1, 0.79, 1])
    np.testing.assert_array_equal(unsure_eegs(eegs, others, 0.8), [True, True, False, True])
    assert not unsure_eegs(eegs, others, None).any()
    assert not unsure_eegs(eegs, None, 0.8).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_votes_are_blended_in(models, index, shard_set, tmp_path, share):
    also = ["--max_votes", 1000, "--max_other", "null", "--vote_share", share]
    pseudolabel("--predictions", *models[0], *options(shard_set, tmp_path, *also))
    found = read_predictions(tmp_path / "labels.parquet")[list(CLASSES)].to_numpy()
    np.testing.assert_allclose(found, (1 - share) * models[1].mean(axis=0) + share * index.targets, rtol=1e-9)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-12)


def test_the_table_is_an_overlay(models, index, shard_set, tmp_path):
    bound = int(np.median(index.num_voters))
    also = ["--max_votes", bound, "--max_other", "null"]
    pseudolabel("--predictions", *models[0], *options(shard_set, tmp_path, *also))
    config = OverlayConfig(file=tmp_path / "labels.parquet", max_votes=bound)
    targets, rows, _ = overlay_targets(index, np.arange(len(index)), config)
    low = index.num_voters <= bound
    np.testing.assert_allclose(targets[low], models[1].mean(axis=0)[low], rtol=1e-9)
    np.testing.assert_array_equal(targets[~low], index.targets[~low])
    assert len(rows) == len(index)


def test_unlabelled_low_vote_rows_are_refused(models, index, shard_set, tmp_path, write, record):
    low = np.flatnonzero(index.num_voters <= index.num_voters.max())
    path = write("few.parquet", models[1][0][low[3:]], [Source(model=record("few", 1))], rows=low[3:])
    with pytest.raises(UserError, match=r"few.parquet: lacks 3 of \d+ rows with at most 1000 votes, like \d+-\d+"):
        pseudolabel("--predictions", path, *options(shard_set, tmp_path, "--max_votes", 1000))
    foreign = tmp_path / "foreign.parquet"
    table = read_predictions(path)
    table.loc[5, ["key", "eeg_id", "eeg_sub_id"]] = ["1-1", 1, 1]
    table.to_parquet(foreign)
    with pytest.raises(UserError, match=r"foreign.parquet: key 1-1: not a sample of .* \(1 such rows of"):
        pseudolabel("--predictions", foreign, *options(shard_set, tmp_path))


def test_no_label_left_is_refused(models, shard_set, tmp_path):
    with pytest.raises(UserError, match=r"max_other: 1e-09 leaves none of \d+ rows with few votes; raise it"):
        pseudolabel("--predictions", *models[0], *options(shard_set, tmp_path, "--max_votes", 99, "--max_other", 1e-9))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--max_votes", 0], "max_votes: expected at least 1, found 0"),
        (["--max_other", 1.5], r"max_other: expected a share in \(0, 1\], or null, found 1.5"),
        (["--vote_share", -0.1], "vote_share: expected 0 to 1, found -0.1"),
        (["--out", "labels.csv"], "out: expected a name ending in .parquet, found labels.csv"),
    ],
)
def test_options_that_cannot_be(models, shard_set, tmp_path, words, message):
    with pytest.raises(UserError, match=message):
        pseudolabel("--predictions", *models[0], *options(shard_set, tmp_path), *words)


def test_from_a_trained_run_to_the_run_that_learns_from_it(trained, shard_set, small_file, tmp_path, capsys):
    """A run of fold 0 may learn from predictions of a run of fold 0, but no run of another fold may."""
    assert (
        main(["predict", "--run", str(trained), "--shards", str(shard_set), "--out", str(tmp_path / "p.parquet")]) == 0
    )
    (source,) = read_sources(tmp_path / "p.parquet")
    assert source == Source(model=stored_record(trained / "best"))
    assert source.model.weights == sha256_of(trained / "best/ema.safetensors")
    also = ["--max_votes", 1000, "--max_other", "null"]
    pseudolabel("--predictions", tmp_path / "p.parquet", *options(shard_set, tmp_path, *also))
    assert json.loads(capsys.readouterr().out)["validation_folds_unseen"] == {"3": [0]}
    words = ["--config", str(small_file), "--shards", str(shard_set), "--out", str(tmp_path / "run")]
    words += ["--overlay.file", str(tmp_path / "labels.parquet")]
    data = open_run_data(load(TrainConfig, [*words, "--fold", "0"]))
    assert len(data.labels.rows)
    with pytest.raises(
        UserError, match=rf"labels.parquet: its model {trained} \(fold 0 of 3\) has seen \d+ of the \d+"
    ):
        open_run_data(load(TrainConfig, [*words, "--fold", "1"]))
    open_run_data(load(TrainConfig, [*words, "--fold", "none"]))
