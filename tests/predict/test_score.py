"""The command `score`: Kaggle's metric to the last digit, intervals over patients, and every refusal."""

import json

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.score import Score, scored
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import read_index


@pytest.fixture
def guessed(shard_set, tmp_path, rng):
    """A table of random predictions for every row of the shard set, and the index's frame."""
    frame = read_index(shard_set / "index.parquet").frame
    path = tmp_path / "p.parquet"
    write_predictions(path, prediction_table(frame, None, rng.dirichlet(np.ones(6), len(frame))))
    return path, frame


def kaggles_score(solution, submission):
    """The competition's metric in pandas, column by column, reimplemented from its description."""
    total = pd.Series(0.0, solution.index)
    for name in solution:
        p, q = solution[name], submission[name].clip(1e-15, 1 - 1e-15)
        terms = p.copy()
        terms[p != 0] = p[p != 0] * np.log(p[p != 0] / q[p != 0])
        total = total + terms
    return float(np.average(total))


def test_the_kl_is_kaggles_to_the_last_digit(guessed, shard_set):
    path, frame = guessed
    found = scored(Score(predictions=path, labels=shard_set))
    solution = frame[list(HMS.vote_columns)].astype(float).set_axis(list(CLASSES), axis=1)
    solution = solution.div(solution.sum(axis=1), axis=0)
    submission = pd.read_parquet(path)[list(CLASSES)]
    assert found["kl"] == kaggles_score(solution, submission)
    voters = frame[list(HMS.vote_columns)].sum(axis=1)
    for name, mask in (("all", voters > 0), ("votes_1_to_7", voters <= 7), ("votes_from_8", voters > 7)):
        entry = found["strata"][name]
        assert entry["num_rows"] == mask.sum()
        assert entry["kl"] == kaggles_score(solution[mask], submission[mask])
        constant = pd.DataFrame([solution.mean()] * len(frame), frame.index)
        assert entry["constant_kl"] == pytest.approx(kaggles_score(solution[mask], constant[mask]), rel=1e-12)
        for kind in ("", "constant_"):
            assert sum(entry[f"{kind}class_kl"].values()) == pytest.approx(entry[f"{kind}kl"], rel=1e-12)


def test_labels_from_a_shard_set_or_a_table_score_the_same(guessed, shard_set, recordings):
    path, _ = guessed
    one, other = (scored(Score(predictions=path, labels=labels)) for labels in (shard_set, recordings / "train.csv"))
    assert one["kl"] == other["kl"]
    assert one["strata"] == other["strata"]


def test_the_interval_is_that_of_resampled_patients(guessed, shard_set, rng):
    """Against numpy's own draws: quantiles of 4,000 agree to a few standard errors."""
    path, frame = guessed
    entry = scored(Score(predictions=path, labels=shard_set, num_draws=4000, level=0.8))["strata"]["all"]
    votes = frame[list(HMS.vote_columns)].to_numpy(float)
    p, q = votes / votes.sum(axis=1, keepdims=True), pd.read_parquet(path)[list(CLASSES)].to_numpy()
    values = pd.Series(np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / q), 0).sum(axis=1))
    by_patient = [group.to_numpy() for _, group in values.groupby(frame["patient_id"].to_numpy())]
    means = [
        np.concatenate([by_patient[i] for i in rng.integers(0, len(by_patient), len(by_patient))]).mean()
        for _ in range(4000)
    ]
    tolerance = 0.3 * np.std(means)
    assert entry["kl_interval"] == pytest.approx(np.quantile(means, [0.1, 0.9]), abs=tolerance)
    assert entry["kl_interval"][0] < entry["kl"] < entry["kl_interval"][1]


def test_intervals_repeat_and_follow_seed_and_level(guessed, shard_set):
    path, _ = guessed

    def interval(**options):
        return scored(Score(predictions=path, labels=shard_set, **options))["strata"]["all"].get("kl_interval")

    assert interval() == interval()
    assert interval() != interval(seed=1)
    assert interval(level=0.5)[0] > interval()[0]
    assert interval(num_draws=0) is None


def test_votes_and_patients_that_a_table_brings_do_not_count(guessed, shard_set, tmp_path):
    """Teams keep predictions and labels in one table, shares of the votes and all."""
    path, _ = guessed
    table = pd.read_parquet(path).assign(patient_id=1, **dict.fromkeys(HMS.vote_columns, 1 / 6))
    table.to_parquet(tmp_path / "beside.parquet")
    one, other = (scored(Score(predictions=p, labels=shard_set)) for p in (path, tmp_path / "beside.parquet"))
    assert one == other


def test_one_patient_has_no_interval(guessed, shard_set, tmp_path):
    path, frame = guessed
    one = frame["patient_id"] == frame["patient_id"].iloc[0]
    pd.read_parquet(path)[one.to_numpy()].to_parquet(tmp_path / "one.parquet")
    found = scored(Score(predictions=tmp_path / "one.parquet", labels=shard_set))
    assert found["strata"]["all"]["kl_interval"] is None
    assert found["num_rows_without_prediction"] == (~one).sum()


def test_it_reports_how_many_rows_were_held_out(guessed, shard_set, tmp_path):
    path, frame = guessed
    assert scored(Score(predictions=path, labels=shard_set))["num_rows_held_out"] == 0
    table = pd.read_parquet(path)
    folds = np.where(np.arange(len(table)) % 3 == 1, 1, -1)
    values = table[list(CLASSES)].to_numpy()
    write_predictions(tmp_path / "some.parquet", prediction_table(frame, folds, values))
    found = scored(Score(predictions=tmp_path / "some.parquet", labels=shard_set))
    assert found["num_rows_held_out"] == (folds == 1).sum()


def test_it_prints_json_or_writes_it(guessed, recordings, tmp_path, capsys):
    words = ["--predictions", str(guessed[0]), "--labels", str(recordings / "train.csv"), "--num_draws", "10"]
    assert main(["score", *words, "--truth", str(recordings / "truth.parquet")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["strata"]["all"]["oracle_kl"] < found["strata"]["all"]["constant_kl"]
    assert len(found["strata"]["all"]["kl_interval"]) == 2
    more = ["--truth", str(recordings / "truth.parquet"), "--out", str(tmp_path / "score.json")]
    assert main(["score", *words, *more]) == 0
    assert capsys.readouterr().out == ""
    assert json.loads((tmp_path / "score.json").read_text()) == found


def test_a_submission_is_scored_by_eeg(guessed, shard_set, recordings, tmp_path, rng):
    _, frame = guessed
    table = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id")
    table.to_csv(tmp_path / "first.csv", index=False)
    first = frame[frame.set_index(["eeg_id", "eeg_sub_id"]).index.isin(table.set_index(["eeg_id", "eeg_sub_id"]).index)]
    made = prediction_table(first, None, rng.dirichlet(np.ones(6), len(first)))
    for name in ("p.csv", "q.parquet"):
        write_predictions(tmp_path / name, made)
    pd.read_csv(tmp_path / "p.csv").assign(**dict.fromkeys(CLASSES, "x")).to_csv(tmp_path / "p.csv", index=False)
    one, other = (
        scored(Score(predictions=tmp_path / n, labels=tmp_path / "first.csv")) for n in ("p.csv", "q.parquet")
    )
    assert one["kl"] == pytest.approx(other["kl"], rel=1e-14)
    with pytest.raises(UserError, match=r"p.csv: one row per EEG, but .* has several; score a .parquet"):
        scored(Score(predictions=tmp_path / "p.csv", labels=shard_set))


def test_what_is_refused(guessed, shard_set, recordings, tmp_path):
    path, _ = guessed
    for words, message in (
        (["--num_draws", "-1"], "num_draws: expected 0 or more, found -1"),
        (["--level", "1"], "level: expected above 0 and below 1, found 1.0"),
        (["--seed", "-1"], "seed"),
    ):
        with pytest.raises(UserError, match=message):
            load(Score, ["--predictions", "p.parquet", "--labels", "l", *words])
    with pytest.raises(UserError, match=r"truth.parquet: no such file; only simulated data has a truth.parquet"):
        scored(Score(predictions=path, labels=shard_set, truth=tmp_path / "truth.parquet"))
    table = pd.read_csv(recordings / "train.csv")
    table[1:].to_csv(tmp_path / "short.csv", index=False)
    key = f"eeg_id {table['eeg_id'][0]}, eeg_sub_id {table['eeg_sub_id'][0]}"
    with pytest.raises(UserError, match=rf"short.csv: no row for {key} \(1 such rows\); are these the right tables"):
        scored(Score(predictions=path, labels=tmp_path / "short.csv"))
    table[["eeg_id", "spectrogram_id", "patient_id"]].drop_duplicates("eeg_id").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t.csv: the rows have no votes; scoring needs labelled rows"):
        scored(Score(predictions=path, labels=tmp_path / "t.csv"))
