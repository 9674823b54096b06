"""Filters against the formulas of their sources, and what they refuse."""

import logging

import numpy as np
import pytest
from scipy.stats import entropy

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.results.predictions import prediction_table, read_predictions, write_predictions
from hms_dist.stream.rows.filters import FilterConfig, Filtered, filter_rows, label_peakedness


def predictions(index, path, rows, folds, rng):
    """Write random predictions of `rows`."""
    write_predictions(path, prediction_table(index.frame.iloc[rows], folds, rng.dirichlet(np.ones(6), len(rows))))


class TestLabelPeakedness:
    """The two-stage course project's code, from raw votes."""

    def test_it_is_the_kl_from_uniform_to_the_votes(self, rng):
        votes = rng.integers(0, 9, (50, 6))
        expected = [entropy(np.full(6, 1 / 6), row + 1e-5) for row in votes]
        np.testing.assert_allclose(label_peakedness(votes), expected, rtol=1e-12)

    def test_the_seeds_formula_for_voters_of_one_mind(self):
        votes = np.zeros((40, 6), int)
        votes[:, 2] = np.arange(1, 41)
        expected = -1.79 + 5 / 6 * (11.51 + np.log(np.arange(1, 41)))
        np.testing.assert_allclose(label_peakedness(votes), expected, atol=0.01)

    def test_nine_drops_the_unanimous_rows_of_five_votes_or_more(self, index, rng):
        votes = index.votes.copy()
        votes[:100] = 0
        votes[np.arange(100), rng.integers(0, 6, 100)] = np.arange(100) % 41 + 1
        index.__dict__["votes"] = votes
        rows, _ = filter_rows(index, np.arange(503), FilterConfig(label_peakedness=9))
        unanimous = (votes.max(axis=1) == votes.sum(axis=1)) & (votes.sum(axis=1) >= 5)
        np.testing.assert_array_equal(rows, np.flatnonzero(~unanimous))


class TestModelLoss:
    """The two-stage course project's text: the first stage's out-of-fold loss."""

    def test_rows_below_the_threshold_stay(self, index, tmp_path, rng):
        folds = index.folds(5)
        for fold in range(5):
            rows = np.flatnonzero(folds == fold)
            predictions(index, tmp_path / f"{fold}.parquet", rows, np.full(len(rows), fold), rng)
        paths = tuple(tmp_path / f"{fold}.parquet" for fold in range(5))
        train = np.flatnonzero(folds != 0)
        tables = {key: row for path in paths for key, row in read_predictions(path).set_index("key").iterrows()}
        loss = np.array(
            [
                entropy(index.targets[row], tables[index.frame["key"].iloc[row]][list(CLASSES)].astype(float))
                for row in train
            ]
        )
        middle = len(loss) // 2
        threshold = float(np.sort(loss)[middle : middle + 2].mean())  # between two rows: no row decides by rounding
        kept, (report,) = filter_rows(index, train, FilterConfig(model_loss=threshold, predictions=paths))
        np.testing.assert_array_equal(kept, train[loss < threshold])
        assert (report.num_kept, report.num_rows) == (len(kept), len(train))

    def test_rows_that_the_model_trained_on_are_refused(self, index, tmp_path, rng):
        folds = np.where(np.arange(503) < 20, -1, 0)
        predictions(index, tmp_path / "p.parquet", np.arange(503), folds, rng)
        config = FilterConfig(model_loss=1, predictions=(tmp_path / "p.parquet",))
        with pytest.raises(UserError, match=r"p\.parquet: key \S+: no fold, .* \(20 such rows of 503\); give the pred"):
            filter_rows(index, np.arange(503), config)

    def test_training_rows_without_a_prediction_are_refused(self, index, tmp_path, rng):
        predictions(index, tmp_path / "p.parquet", np.arange(400), np.zeros(400, int), rng)
        config = FilterConfig(model_loss=1, predictions=(tmp_path / "p.parquet",))
        key = index.frame["key"].iloc[400]
        with pytest.raises(UserError, match=rf"no prediction for 103 of 503 training rows, like {key}; give the tab"):
            filter_rows(index, np.arange(503), config)

    def test_a_row_in_two_tables_is_refused(self, index, tmp_path, rng):
        for name in ("a", "b"):
            predictions(index, tmp_path / f"{name}.parquet", np.arange(503), np.zeros(503, int), rng)
        config = FilterConfig(model_loss=1, predictions=(tmp_path / "a.parquet", tmp_path / "b.parquet"))
        with pytest.raises(UserError, match=r"b\.parquet: key \S+: appears twice \(503 such rows of 1006\)"):
            filter_rows(index, np.arange(503), config)


def test_both_filters_see_all_rows_and_both_count(index, tmp_path, rng):
    predictions(index, tmp_path / "p.parquet", np.arange(503), np.zeros(503, int), rng)
    one = FilterConfig(label_peakedness=3)
    other = FilterConfig(model_loss=1.0, predictions=(tmp_path / "p.parquet",))
    both = FilterConfig(label_peakedness=3, model_loss=1.0, predictions=(tmp_path / "p.parquet",))
    found = [filter_rows(index, np.arange(503), config) for config in (one, other, both)]
    assert set(found[2][0]) == set(found[0][0]) & set(found[1][0])
    assert found[2][1] == [*found[0][1], *found[1][1]]


def test_filters_that_leave_nothing_are_refused_with_what_each_keeps(index):
    found = r"filters leave none of 503 training rows \(label_peakedness below -1 keeps 0\); raise their thresholds"
    with pytest.raises(UserError, match=found):
        filter_rows(index, np.arange(503), FilterConfig(label_peakedness=-1))


@pytest.mark.parametrize(
    ("num_kept", "level", "text"),
    [
        (503, "WARNING", "filter label_peakedness below 9 keeps 503 of 503 training rows: it does nothing"),
        (50, "WARNING", "filter label_peakedness below 9 keeps 50 of 503 training rows: fewer than 10 %"),
        (51, "INFO", "filter label_peakedness below 9 keeps 51 of 503 training rows"),
    ],
)
def test_what_a_filter_did_is_logged(num_kept, level, text, caplog):
    with caplog.at_level(logging.INFO, "hms_dist"):
        Filtered(name="label_peakedness", threshold=9.0, num_kept=num_kept, num_rows=503).log()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [(level, text)]


def test_a_loss_filter_needs_predictions_and_nothing_else_does(tmp_path):
    for options in ({"model_loss": 1.0}, {"predictions": (tmp_path / "p.parquet",)}):
        with pytest.raises(ValueError, match=r"filters.predictions: model_loss needs them, and nothing else uses them"):
            FilterConfig(**options)
