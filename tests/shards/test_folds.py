"""Folds as columns of the index: no patient on both sides, classes spread, the same for all runs of a set."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.labels.table import FOLD_COUNTS
from hms_dist.shards.folds import with_folds
from hms_dist.shards.index import Index, fold_column, read_index

SHARE_TOLERANCE = 0.03
"""A class's share of a fold differs by at most this from its share of all rows, up to 10 folds (0.002 up to 8)."""


@pytest.fixture(scope="module")
def full(full_size_table):
    return with_folds(full_size_table, seed=0)


def test_the_table_has_the_statistics_of_the_real_one(full_size_table):
    rows_of = full_size_table["eeg_id"].value_counts()
    assert (len(full_size_table), len(rows_of)) == (106_800, 17_089)
    assert (rows_of.min(), rows_of.max()) == (1, 700)
    assert full_size_table["spectrogram_id"].nunique() == 11_138
    assert full_size_table["patient_id"].nunique() == 1_950
    assert (full_size_table.groupby("eeg_id")[["patient_id", "spectrogram_id"]].nunique() == 1).all(axis=None)
    shares = np.bincount(full_size_table[list(HMS.vote_columns)].to_numpy().argmax(axis=1)) / 106_800
    assert shares == pytest.approx([0.196, 0.139, 0.156, 0.156, 0.177, 0.176], abs=0.02)


@pytest.mark.parametrize("num_folds", FOLD_COUNTS)
def test_no_patient_is_on_both_sides_and_classes_are_spread(full, num_folds):
    folds = Index(full).folds(num_folds)
    assert set(folds) == set(range(num_folds))
    assert (full["patient_id"].groupby(folds).unique().explode().value_counts() == 1).all()
    classes = full[list(HMS.vote_columns)].to_numpy().argmax(axis=1)
    whole = np.bincount(classes) / len(full)
    for fold in range(num_folds):
        shares = np.bincount(classes[folds == fold], minlength=6) / (folds == fold).sum()
        assert np.abs(shares - whole).max() < (0.002 if num_folds <= 8 else SHARE_TOLERANCE)
        assert (folds == fold).sum() == pytest.approx(len(full) / num_folds, rel=0.05)


def small(rng, num_patients=12, num_rows=90):
    patients = np.append(np.arange(num_patients), rng.integers(0, num_patients, num_rows - num_patients))
    frame = pd.DataFrame({"eeg_id": np.arange(num_rows), "patient_id": patients})
    frame[list(HMS.vote_columns)] = rng.integers(1, 9, (num_rows, 6))
    return frame


def test_folds_depend_on_the_seed_and_not_on_the_order_of_rows(rng):
    """With patients of one row, which are alike: of a few large patients none may be left to be exchanged."""
    frame = small(rng, num_patients=60)
    seed, *others = rng.choice(2**32, 8, replace=False).tolist()
    first = with_folds(frame, seed=seed)
    pd.testing.assert_frame_equal(first, with_folds(frame, seed=seed))
    shuffled = with_folds(frame.sample(frac=1, random_state=rng), seed=seed)
    pd.testing.assert_frame_equal(first, shuffled.sort_index())
    assert any(not first.equals(with_folds(frame, seed=other)) for other in others)


def test_more_folds_than_patients_are_null(rng):
    frame = with_folds(small(rng, num_patients=4), seed=0)
    assert [frame[fold_column(n)].notna().all() for n in FOLD_COUNTS] == [n <= 4 for n in FOLD_COUNTS]
    with pytest.raises(UserError, match=r"^num_folds: 5 folds need as many patients, found 4; lower num_folds$"):
        Index(frame).folds(5)


def test_a_row_for_each_patient_has_folds_though_no_class_reaches_them_all(rng):
    frame = small(rng, num_patients=6, num_rows=6)
    frame[list(HMS.vote_columns)] = np.eye(6, dtype=int)
    folds = Index(with_folds(frame, seed=0)).folds(6)
    assert sorted(folds) == list(range(6))


def test_unlabelled_rows_have_none(rng):
    frame = small(rng)
    frame[list(HMS.vote_columns)] = None
    frame = with_folds(frame, seed=0)
    assert all(frame[fold_column(n)].isna().all() for n in FOLD_COUNTS)
    with pytest.raises(UserError, match="no votes"):
        Index(frame).folds(2)


def test_a_rendered_set_has_them(shard_set):
    index = read_index(shard_set / "index.parquet")
    expected = with_folds(index.frame.drop(columns=[fold_column(n) for n in FOLD_COUNTS]), seed=0)
    for num_folds in (2, 3):
        np.testing.assert_array_equal(index.folds(num_folds), expected[fold_column(num_folds)].to_numpy(np.int64))
