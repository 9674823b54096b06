"""The rules against plain loops over random tables."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import WINDOW_SAMPLES
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CONSENSUS as CONSENSUS_NAMES
from hms_dist.labels.subset_rules import RULES, balanced, classes_of, eeg_sum, golden, high_vote, spectrogram_sum
from hms_dist.recordings.reader import Recording
from hms_dist.rendering.row_source import window_of

VOTES = list(HMS.vote_columns)
OFFSET = "spectrogram_label_offset_seconds"


@pytest.fixture
def frame(rng):
    """120 rows of 20 EEGs of 9 spectrograms, few distinct votes per EEG, rows of every class, in random order."""
    eeg = np.sort(np.append(np.arange(20), rng.integers(0, 20, 100)))
    labels = rng.multinomial(rng.choice([3, 8, 9, 15], 40), np.full(6, 1 / 6), 40)
    labels[:12] += 16 * np.repeat(np.eye(6, dtype=int), 2, axis=0)
    votes = labels[2 * eeg + rng.integers(0, 2, 120)]
    table = pd.DataFrame(
        {
            "eeg_id": 1000 + eeg,
            "spectrogram_id": 70 + eeg // 3 + eeg // 9,
            "patient_id": eeg // 6,
            "eeg_sub_id": pd.Series(eeg).groupby(eeg).cumcount(),
            "eeg_label_offset_seconds": rng.integers(0, 300, 120) * 2.0,
            OFFSET: rng.integers(0, 300, 120) * 2.0,
            **dict(zip(VOTES, votes.T, strict=True)),
            "expert_consensus": np.array(list(CONSENSUS_NAMES))[votes.argmax(axis=1)],
        }
    )
    return table.sample(frac=1, random_state=rng).reset_index(drop=True)


def test_balanced_draws_the_same_number_of_each_class(frame):
    least = np.bincount(classes_of(frame), minlength=6).min()
    rows = balanced(frame, rows_per_class=least, seed=5)
    assert np.bincount(classes_of(rows), minlength=6).tolist() == [least] * 6
    assert rows.index.is_monotonic_increasing
    assert rows.index.is_unique
    pd.testing.assert_frame_equal(rows, frame.loc[rows.index])


def test_balanced_depends_on_ids_and_seed_only(full_size_table):
    table = full_size_table.assign(expert_consensus=np.array(list(CONSENSUS_NAMES))[classes_of(full_size_table)])
    keys = [
        set(map(tuple, balanced(rows, seed=seed)[["eeg_id", "eeg_sub_id"]].to_numpy()))
        for rows, seed in ((table, 0), (table[::-1], 0), (table, 1))
    ]
    assert [len(found) for found in keys] == [300, 300, 300]
    assert keys[0] == keys[1]
    assert len(keys[0] & keys[2]) < 30


def test_balanced_names_the_class_that_is_short(frame):
    classes = np.resize(list(CONSENSUS_NAMES), len(frame))
    frame = frame.assign(expert_consensus=classes)[(classes != "LRDA") | (np.arange(len(frame)) < 12)]
    assert len(balanced(frame, rows_per_class=2)) == 12
    with pytest.raises(UserError, match=r"^rows_per_class: 3 rows of each class needed, LRDA has 2; lower it$"):
        balanced(frame, rows_per_class=3)


def test_high_vote_keeps_rows_with_the_votes(frame):
    for min_votes in (1, 8, 9, 15):
        expected = [
            row for row, votes in zip(frame.index, frame[VOTES].to_numpy(), strict=True) if sum(votes) >= min_votes
        ]
        assert high_vote(frame, min_votes=min_votes).index.tolist() == expected
    assert len(high_vote(frame)) == len(high_vote(frame, min_votes=8))


def test_golden_is_the_row_of_most_overlap_of_each_label(frame):
    """The 3rd place counted, second by second, how many windows of the group cover it."""
    groups = {}
    for row, values in frame.iterrows():
        if sum(values[VOTES]) > 8:
            groups.setdefault((values["eeg_id"], *values[VOTES]), []).append(row)
    expected = []
    for rows in groups.values():
        offsets = frame[OFFSET][rows].astype(int).to_numpy()
        cover = np.zeros(offsets.max() + 600)
        for offset in offsets:
            cover[offset : offset + 600] += 1
        expected.append(rows[int(np.argmax([cover[offset : offset + 600].sum() for offset in offsets]))])
    assert golden(frame).index.tolist() == sorted(expected)


def write_eegs(folder, lengths):
    (folder / "train_eegs").mkdir()
    for number, length in lengths.items():
        pq.write_table(pa.table({"Fp1": np.zeros(length, np.float32)}), folder / f"train_eegs/{number}.parquet")


def test_eeg_sum_is_the_public_baselines_table(frame, tmp_path, rng):
    lengths = {number: int(rng.integers(WINDOW_SAMPLES, 90_000)) for number in frame["eeg_id"].unique()}
    write_eegs(tmp_path, lengths)
    rows = eeg_sum(frame, data=tmp_path)
    assert rows["eeg_id"].tolist() == frame["eeg_id"].unique().tolist()
    for _, row in rows.iterrows():
        group = frame[frame["eeg_id"] == row["eeg_id"]]
        assert row[VOTES].tolist() == group[VOTES].sum().tolist()
        assert (
            row[["spectrogram_id", "patient_id"]].tolist() == group.iloc[0][["spectrogram_id", "patient_id"]].tolist()
        )
        # Its sheet takes spectrogram rows of 2 s from (first + last offset) // 4 on.
        first_row = np.searchsorted(np.arange(1, 2000, 2), row[OFFSET])
        assert first_row == int((group[OFFSET].min() + group[OFFSET].max()) // 4)
        assert row["eeg_sub_id"] == 0
        best = [name for name, votes in zip(CONSENSUS_NAMES, row[VOTES], strict=True) if votes == max(row[VOTES])]
        own = group["expert_consensus"].iloc[0]
        assert row["expert_consensus"] == (own if own in best else best[0])


def test_the_middle_window_comes_back_to_the_sample(tmp_path, rng):
    """Through CSV text and seconds, odd numbers of samples included."""
    spectrogram = np.zeros((1, 4, 100), np.float32)
    for length in [10_000, 10_001, 10_002, 10_003, *rng.integers(10_000, 2_000_000, 30)]:
        start = (int(length) - WINDOW_SAMPLES) // 2
        offset_s = float(repr(start / 200))
        recording = Recording(
            eeg_id=1, eeg=np.broadcast_to(np.float32(0), (length, 20)),
            spectrogram_id=2, spectrogram=spectrogram, spectrogram_time_s=np.array([1.0]),
        )  # fmt: skip
        fields = {"eeg_label_offset_seconds": offset_s, OFFSET: 0.0}
        assert window_of(recording, fields).start == start


def test_eeg_sum_refuses_what_has_no_middle(frame, tmp_path):
    write_eegs(tmp_path, dict.fromkeys(frame["eeg_id"], 9_999))
    with pytest.raises(UserError, match=r"\.parquet: expected at least 10000 samples, found 9999; remove its rows$"):
        eeg_sum(frame, data=tmp_path)
    with pytest.raises(UserError, match=r"\.parquet: no such file; the label table names it"):
        eeg_sum(frame, data=tmp_path / "elsewhere")
    frame.loc[frame.index[frame["eeg_id"].duplicated()][0], "spectrogram_id"] = 5
    with pytest.raises(UserError, match=r"^EEG \d+ has 2 spectrograms; rule eeg_sum expects one$"):
        eeg_sum(frame, data=tmp_path)


def test_spectrogram_sum_has_a_row_per_spectrogram(frame):
    rows = spectrogram_sum(frame)
    assert sorted(rows["spectrogram_id"]) == sorted(frame["spectrogram_id"].unique())
    assert rows.index.is_monotonic_increasing
    for number, row in rows.iterrows():
        group = frame[frame["spectrogram_id"] == row["spectrogram_id"]]
        mean = (group[OFFSET].min() + group[OFFSET].max()) / 2
        assert (row[OFFSET], row[VOTES].tolist()) == (mean, group[VOTES].sum().tolist())
        distances = [abs(offset - mean) for offset in group[OFFSET]]
        assert number == group.index[distances.index(min(distances))]
        assert row["eeg_label_offset_seconds"] == frame["eeg_label_offset_seconds"][number]


@pytest.mark.parametrize("name", RULES)
def test_rules_keep_columns_and_types_and_leave_their_source_alone(frame, name, tmp_path):
    write_eegs(tmp_path, dict.fromkeys(frame["eeg_id"], 20_001))
    options = {"balanced": {"rows_per_class": 1}, "eeg_sum": {"data": tmp_path}}.get(name, {})
    before = frame.copy()
    rows = RULES[name](frame, **options)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_series_equal(rows.dtypes, frame.dtypes)
    assert not rows.isna().any(axis=None)


def test_classes_without_consensus_are_those_of_most_votes(frame):
    np.testing.assert_array_equal(classes_of(frame), classes_of(frame.drop(columns="expert_consensus")))
