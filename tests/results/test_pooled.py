"""Rows of a recording pooled into a submission, and LWLRAP over the classes known in any row of a recording."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset, Submission
from hms_dist.labels.recording_ids import recording_number
from hms_dist.labels.table import sample_key
from hms_dist.results.predictions import pooled_rows, read_predictions, write_predictions
from hms_dist.results.yes_no import lwlrap, recording_lwlrap

BIRDS = Dataset(
    name="birds", classes=("s0", "s1", "s2"), target="yes_no", signal="audio", rate_hz=8000, window_s=2.0,
    context_s=2.0, annotated_s=0.4, submission=Submission(key="recording_id", column="s{number}", pool="max"),
)  # fmt: skip
NAMES = ("00000000a", "0fffffff1", "000000002")


def table(rng: np.random.Generator) -> pd.DataFrame:
    """Three, one and two rows of three recordings, in any order."""
    numbers = [recording_number(NAMES[place]) for place in (0, 0, 1, 2, 0, 2)]
    subs = [0, 1, 0, 0, 2, 1]
    frame = pd.DataFrame(rng.random((6, 3)), columns=list(BIRDS.classes))
    keys = [sample_key(number, sub) for number, sub in zip(numbers, subs, strict=True)]
    return frame.assign(key=keys, eeg_id=numbers, eeg_sub_id=subs, fold=pd.array([None] * 6, "Int64"))


def pooled_by(rule: str, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = table(rng)
    dataset = replace(BIRDS, submission=replace(BIRDS.submission, pool=rule))
    return rows, pooled_rows(rows, dataset).set_index("eeg_id").sort_index()


@pytest.mark.parametrize(
    ("rule", "by_hand"),
    [
        ("max", lambda values: values.max(axis=0)),
        ("mean", lambda values: values.mean(axis=0)),
        ("noisy_or", lambda values: 1 - (1 - values).prod(axis=0)),
    ],
)
def test_rows_are_pooled_by_each_rule(rng: np.random.Generator, rule, by_hand) -> None:
    rows, found = pooled_by(rule, rng)
    for number, part in rows.groupby("eeg_id"):
        np.testing.assert_allclose(found.loc[number], by_hand(part[list(BIRDS.classes)].to_numpy()))


def test_a_certain_row_is_certain_in_noisy_or(rng: np.random.Generator) -> None:
    rows = table(rng)
    rows.loc[0, "s1"] = 1.0
    dataset = replace(BIRDS, submission=replace(BIRDS.submission, pool="noisy_or"))
    found = pooled_rows(rows, dataset).set_index("eeg_id").loc[rows["eeg_id"][0], "s1"]
    assert found == pytest.approx(1)
    assert found <= 1


def test_shares_are_divided_by_their_sum_again(rng: np.random.Generator) -> None:
    rows = table(rng)
    rows[list(BIRDS.classes)] = rng.dirichlet(np.ones(3), 6)
    found = pooled_rows(rows, replace(BIRDS, target="shares"))
    np.testing.assert_allclose(found[list(BIRDS.classes)].sum(axis=1), 1)


def test_a_submission_names_its_recordings_and_reads_back(tmp_path, rng: np.random.Generator) -> None:
    rows, path = table(rng), tmp_path / "submission.csv"
    write_predictions(path, rows, (), BIRDS)
    lines = path.read_text().splitlines()
    assert lines[0] == "recording_id,s0,s1,s2"
    assert [line.split(",")[0] for line in lines[1:]] == sorted(NAMES)
    again = read_predictions(path, BIRDS).set_index("eeg_id")
    expected = pooled_rows(rows, BIRDS).set_index("eeg_id")
    np.testing.assert_allclose(again, expected.loc[again.index, list(BIRDS.classes)])
    path.write_text("recording_id,s0,s1,s2\nowl,0,0,0\n")
    with pytest.raises(UserError, match="row 2, column recording_id: expected 1 to 15 hexadecimal digits"):
        read_predictions(path, BIRDS)
    none = replace(BIRDS, submission=replace(BIRDS.submission, pool="none"))
    with pytest.raises(UserError, match="a submission takes one row per EEG, found several"):
        write_predictions(path, rows, (), none)


def test_a_recording_ranks_what_any_of_its_rows_knows(rng: np.random.Generator) -> None:
    nan = np.nan
    truth = np.array([[1, nan, nan], [nan, 0, nan], [0, nan, nan], [nan, 1, nan], [nan, nan, 0.0]])
    found = np.array([[0.3, 0.9, 0.9], [0.1, 0.5, 0.9], [0.2, 0, 0], [0, 0.8, 0], [0.9, 0.9, 0.1]])
    recordings = np.array([7, 7, 9, 9, 9])
    assert lwlrap(truth, found) == 1, "a row alone ranks nothing"
    # Recording 7 knows a (yes, 0.3) and b (no, 0.5); recording 9 a (no, 0.2), b (yes, 0.8) and c (no, 0.1).
    assert recording_lwlrap(recordings, truth, found) == pytest.approx((1 / 2 + 1) / 2)
    assert recording_lwlrap(recordings[:1], truth[2:3], found[2:3]) is None
    truth = rng.choice([0.0, 1.0, nan], (40, 3))
    values = rng.random((40, 3))
    assert recording_lwlrap(np.arange(40), truth, values) == pytest.approx(lwlrap(truth, values))
