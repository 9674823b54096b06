"""Targets from a table: which rows take them, and which tables are refused."""

import logging

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.stream.rows.overlay import OverlayConfig, overlay_targets


@pytest.fixture
def table(index, tmp_path, rng):
    """Write a table for some rows, in random order; the probabilities [503, 6] it was made from."""
    everything = rng.dirichlet(np.ones(6), 503)

    def write(rows, **columns):
        rows = rng.permutation(rows)
        frame = pd.DataFrame(everything[rows], columns=list(CLASSES))
        frame.insert(0, "key", index.frame["key"].to_numpy()[rows])
        frame.assign(**columns).to_parquet(tmp_path / "labels.parquet")
        return everything

    return write


def overlay(tmp_path, **options):
    return OverlayConfig(file=tmp_path / "labels.parquet", **options)


def test_only_training_rows_with_few_votes_are_replaced(index, table, tmp_path):
    given = table(np.arange(503))
    train = np.flatnonzero(index.folds(5) != 2)
    targets, rows, done = overlay_targets(index, train, overlay(tmp_path, max_votes=7))
    replaced = np.isin(np.arange(503), train) & (index.num_voters <= 7)
    np.testing.assert_allclose(targets[replaced], given[replaced], rtol=1e-12)
    np.testing.assert_array_equal(targets[~replaced], index.targets[~replaced])
    np.testing.assert_array_equal(rows, train)
    assert (done.num_replaced, done.num_missing, done.num_rows) == (replaced.sum(), 0, len(train))


def test_without_a_bound_all_training_rows_are(index, table, tmp_path):
    given = table(np.arange(503))
    targets, _, _ = overlay_targets(index, np.arange(503), overlay(tmp_path))
    np.testing.assert_allclose(targets, given, rtol=1e-12)
    assert abs(targets.sum(axis=1) - 1).max() < 1e-12


def test_the_votes_stay_what_they_are(index, table, tmp_path):
    """Validation reads index.targets."""
    before = index.targets.copy()
    table(np.arange(503))
    overlay_targets(index, np.arange(503), overlay(tmp_path))
    np.testing.assert_array_equal(index.targets, before)


class TestMissingRows:
    """Low-vote training rows that the table does not name."""

    @pytest.fixture
    def low(self, index, table):
        low = np.flatnonzero(index.num_voters <= 9)
        table(low[5:])
        return low

    def test_they_are_refused_with_their_number(self, index, low, tmp_path):
        found = rf"labels\.parquet: lacks 5 of {len(low)} training rows with at most 9 votes, like \S+; predict them"
        with pytest.raises(UserError, match=found):
            overlay_targets(index, np.arange(503), overlay(tmp_path, max_votes=9))

    def test_or_dropped(self, index, low, tmp_path):
        _, rows, done = overlay_targets(index, np.arange(503), overlay(tmp_path, max_votes=9, missing="drop"))
        np.testing.assert_array_equal(rows, np.setdiff1d(np.arange(503), low[:5]))
        assert (done.num_replaced, done.num_missing) == (len(low) - 5, 5)

    def test_or_keep_their_votes(self, index, low, tmp_path, caplog):
        targets, rows, done = overlay_targets(index, np.arange(503), overlay(tmp_path, max_votes=9, missing="votes"))
        np.testing.assert_array_equal(rows, np.arange(503))
        np.testing.assert_array_equal(targets[low[:5]], index.targets[low[:5]])
        with caplog.at_level(logging.INFO, "hms_dist"):
            done.log()
        assert f"targets of {len(low) - 5} of 503 training rows from" in caplog.text
        assert "; 5 that it lacks: votes" in caplog.text


class TestRefusals:
    """Tables that do not fit the shard set, or hold no probabilities."""

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"key": "1-1-1"}, r"key 1-1-1: not a sample of the shard set \(503 such rows of 503\); is the table of"),
            ({"seizure": 2.0}, r"key \S+: expected six probabilities with a sum of 1 \(503 such rows of 503\); fix"),
            ({"lpd": float("nan")}, r"key \S+: expected six probabilities with a sum of 1 \(503 such rows of 503\)"),
            ({"lpd": "many"}, r"column lpd: expected numbers"),
        ],
    )
    def test_bad_cells(self, index, table, tmp_path, columns, message):
        table(np.arange(503), **columns)
        with pytest.raises(UserError, match=rf"labels\.parquet: {message}"):
            overlay_targets(index, np.arange(503), overlay(tmp_path))

    def test_a_key_twice(self, index, table, tmp_path):
        table(np.array([*range(503), 7]))
        with pytest.raises(UserError, match=r"labels\.parquet: key \S+: appears twice \(1 such rows of 504\)"):
            overlay_targets(index, np.arange(503), overlay(tmp_path))

    def test_no_file(self, index, tmp_path):
        with pytest.raises(UserError, match=r"labels\.parquet: no such file"):
            overlay_targets(index, np.arange(503), overlay(tmp_path))

    def test_a_bound_below_one(self, tmp_path):
        with pytest.raises(ValueError, match=r"overlay.max_votes: expected at least 1 or null, found 0"):
            overlay(tmp_path, max_votes=0)
