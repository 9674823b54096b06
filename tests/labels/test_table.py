"""The label table: what is read, what is refused, targets and folds."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.labels.table import num_voters, patient_folds, read_labels, targets_of


def table(rng, rows=6):
    frame = pd.DataFrame(
        {
            "eeg_id": np.arange(rows) // 2 + 100,
            "eeg_sub_id": np.arange(rows) % 2,
            "eeg_label_offset_seconds": (np.arange(rows) % 2) * 6.0,
            "spectrogram_id": np.arange(rows) // 2 + 900,
            "spectrogram_label_offset_seconds": 0.0,
            "patient_id": np.arange(rows) // 4,
            "expert_consensus": "GPD",
        }
    )
    frame[list(HMS.vote_columns)] = rng.integers(1, 9, (rows, 6))
    return frame


def read(frame, tmp_path):
    frame.to_csv(tmp_path / "train.csv", index=False)
    return read_labels(tmp_path / "train.csv")


def test_a_good_table_is_read_unchanged(tmp_path, rng):
    frame = table(rng)
    labels = read(frame, tmp_path)
    assert labels.labelled
    for name in ("eeg_id", "eeg_sub_id", "patient_id", *HMS.vote_columns):
        assert labels.frame[name].tolist() == frame[name].tolist()


def test_a_test_table_has_no_votes_sub_ids_or_offsets(tmp_path, rng):
    labels = read(table(rng)[::2][["spectrogram_id", "eeg_id", "patient_id"]], tmp_path)
    assert not labels.labelled
    assert labels.frame["eeg_sub_id"].tolist() == [0, 0, 0]
    assert labels.frame["eeg_label_offset_seconds"].tolist() == [0, 0, 0]
    assert labels.frame[list(HMS.vote_columns)].isna().all(axis=None)


def corrupt(column, value, row=3):
    def change(frame):
        frame[column] = frame[column].astype(object)
        frame.loc[row, column] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="lpd_vote"), "column lpd_vote is missing"),
        (lambda f: f.drop(columns="patient_id"), "column patient_id is missing"),
        (lambda f: f.iloc[:0], "no rows"),
        (corrupt("lpd_vote", "two"), "row 5, column lpd_vote: expected a number of at least 0, found 'two'"),
        (corrupt("lpd_vote", -1), "row 5, column lpd_vote: expected a number of at least 0, found '-1'"),
        (corrupt("lpd_vote", 1.5), "row 5, column lpd_vote: expected an integer, found '1.5'"),
        (corrupt("eeg_id", None), "row 5, column eeg_id: expected a number"),
        (corrupt("eeg_label_offset_seconds", "inf"), "row 5, column eeg_label_offset_seconds: expected a number"),
        (
            corrupt("expert_consensus", "Spike"),
            "row 5, column expert_consensus: unknown class 'Spike'; one of: Seizure",
        ),
        (lambda f: f.assign(eeg_sub_id=0), "row 3: eeg_id 100, eeg_sub_id 0 appears twice"),
        (lambda f: f.assign(**dict.fromkeys(HMS.vote_columns, 0)), "row 2: no votes at all"),
    ],
)
def test_what_is_wrong_names_row_and_column(change, message, tmp_path, rng):
    with pytest.raises(UserError) as caught:
        read(change(table(rng)), tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_labels(tmp_path / "train.csv")
    (tmp_path / "train.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(UserError, match="cannot read it as CSV"):
        read_labels(tmp_path / "train.csv")


def test_targets_are_shares(rng):
    votes = rng.integers(0, 9, (40, 6))
    votes[:, 0] += 1
    assert targets_of(votes).sum(axis=1) == pytest.approx(1)
    assert targets_of(votes) * num_voters(votes)[:, None] == pytest.approx(votes)
    with pytest.raises(ValueError, match="at least one vote"):
        targets_of(np.zeros((2, 6)))


def test_folds_part_patients_and_spread_classes(rng):
    patients = np.sort(rng.integers(0, 120, 2000))
    votes = rng.multinomial(5, np.full(6, 1 / 6), 2000)
    folds = patient_folds(votes, patients, 5, seed=3)
    assert set(folds) == set(range(5))
    assert all(len(set(folds[patients == p])) == 1 for p in np.unique(patients))
    share = [np.mean(votes[folds == k].argmax(axis=1) == 0) for k in range(5)]
    assert max(share) - min(share) < 0.1
    assert (folds == patient_folds(votes, patients, 5, seed=3)).all()
    assert (folds != patient_folds(votes, patients, 5, seed=4)).any()


def test_too_few_patients_for_the_folds():
    with pytest.raises(UserError, match="5 folds need as many patients, found 2"):
        patient_folds(np.ones((6, 6)), [1, 1, 1, 2, 2, 2], 5, seed=0)
