"""Scores of the page against plain loops: reliability, and the rows that a table is scored on."""

import numpy as np
import pytest

from hms_dist.report.page_gallery import MAX_ROWS, best_and_worst, chosen_rows
from hms_dist.report.page_runs import short_names
from hms_dist.report.page_scores import Labels, ensemble_gains, read_scored
from hms_dist.results.held_out import reliability
from hms_dist.results.lineage import ModelRecord, Source
from hms_dist.results.metrics import kaggle_kl
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import read_index


def source(weights: str) -> Source:
    """A model with these weights, as a source of a table."""
    return Source(
        model=ModelRecord(run=weights, weights=weights, shards="", fold=None, num_folds=3, seed=0, patients=frozenset())
    )


@pytest.fixture
def labels(shard_set):
    return Labels(location=str(shard_set), fingerprint="", index=read_index(shard_set / "index.parquet"), oracle=None)


@pytest.fixture
def scored(labels, tmp_path, rng):
    """A table of made-up predictions of all rows, in a random order, that holds out `folds`, as the page reads it."""

    def make(name: str, folds: np.ndarray | None, *weights: str):
        frame = labels.index.frame
        table = prediction_table(frame, folds, rng.dirichlet(np.ones(6), len(frame)))
        write_predictions(
            tmp_path / f"{name}.parquet", table.sample(frac=1, random_state=int(rng.integers(99))), map(source, weights)
        )
        return read_scored(tmp_path / f"{name}.parquet", name, labels)

    return make


def test_reliability_is_that_of_a_loop(rng):
    truth, found = rng.dirichlet(np.ones(6), 50), rng.dirichlet(np.ones(6) / 3, 50)
    found[0] = [1, 0, 0, 0, 0, 0]
    bins: dict[int, list[tuple[float, float]]] = {}
    for share, value in zip(truth.ravel(), found.ravel(), strict=True):
        bins.setdefault(min(int(value * 10), 9), []).append((value, share))
    means = [np.mean(bins[number], axis=0) for number in sorted(bins)]
    counts = [len(bins[number]) for number in sorted(bins)]
    result = reliability(truth, found)
    np.testing.assert_allclose(np.stack([result.predicted, result.observed], axis=1), means)
    np.testing.assert_array_equal(result.counts, counts)
    error = sum(count * abs(a - b) for count, (a, b) in zip(counts, means, strict=True)) / truth.size
    assert result.error == pytest.approx(error)


def test_perfect_predictions_are_calibrated(rng):
    truth = rng.dirichlet(np.ones(6), 30)
    assert reliability(truth, truth).error < 1e-12


def test_rows_that_a_model_saw_are_not_scored(scored, labels):
    folds = labels.index.folds(3)
    some, every = scored("some", np.where(folds == 1, 1, -1)), scored("every", None)
    assert some.held_out
    assert not every.held_out
    np.testing.assert_array_equal(some.rows, np.flatnonzero(folds == 1))
    np.testing.assert_array_equal(every.rows, np.arange(len(folds)))
    np.testing.assert_array_equal(some.truth, labels.index.targets[some.rows])


def test_only_tables_of_the_same_rows_are_averaged(scored, labels):
    folds = labels.index.folds(3)
    tables = [
        scored(name, np.where(folds == fold, fold, -1)) for name, fold in (("a", 0), ("b", 1), ("c", 0), ("d", 2))
    ]
    (gain,) = ensemble_gains(tables)
    assert gain.names == ("a", "c")
    assert gain.num_rows == (folds == 0).sum()
    assert gain.by == "plain mean"
    assert gain.together <= np.mean(gain.single)


def test_what_is_made_of_other_tables_is_listed_beside_their_mean_and_not_in_it(scored):
    a, b, silent = scored("a", None, "1", "2"), scored("b", None, "3"), scored("silent", None)
    pooled, of_a = scored("pooled", None, "1", "2", "3", "fit"), scored("of_a", None, "1", "2", "9")
    mean, other, both = ensemble_gains([pooled, a, b, silent, of_a])
    assert (mean.by, mean.names) == ("plain mean", ("a", "b", "silent"))
    expected = np.mean([table.prediction for table in (a, b, silent)], axis=0)
    assert mean.together == pytest.approx(kaggle_kl(a.truth, expected))
    assert {gain.by: gain.names for gain in (other, both)} == {"pooled": ("a", "b"), "of_a": ("a",)}
    assert other.together == pooled.scores["kl"]
    assert other.single == (a.scores["kl"], b.scores["kl"])


def test_the_gallery_takes_one_row_per_eeg_and_none_twice():
    row_kl, eeg_ids = np.array([0.1, 0.2, 0.3, 0.9, 0.8, 0.7]), np.array([1, 1, 2, 3, 3, 1])
    best, worst = best_and_worst(row_kl, eeg_ids, 2)
    assert (best.tolist(), worst.tolist()) == ([0, 2], [3, 5])
    best, worst = best_and_worst(row_kl, eeg_ids, 9)
    assert (best.tolist(), worst.tolist()) == ([0, 4], [3, 5, 2])
    assert [part.tolist() for part in best_and_worst(row_kl[:1], eeg_ids[:1], 3)] == [[], [0]]
    assert [part.tolist() for part in best_and_worst(row_kl[:0], eeg_ids[:0], 3)] == [[], []]


def test_the_gallery_has_rows_of_every_class():
    row_kl, eeg_ids = np.arange(8) / 10, np.arange(8)
    labels = np.array([[1, 0, 0]] * 4 + [[0, 1, 0]] * 3 + [[0, 0, np.nan]])
    found = chosen_rows(row_kl, labels, eeg_ids, 2)
    assert found == [
        (0, "worst", 1, 3), (0, "worst", 2, 2), (0, "best", 1, 0), (0, "best", 2, 1),
        (1, "worst", 1, 6), (1, "worst", 2, 5), (1, "best", 1, 4), (-1, "worst", 1, 7),
    ]  # fmt: skip
    many = np.eye(100)[np.arange(200) % 100]
    found = chosen_rows(np.arange(200.0), many, np.arange(200), 1)
    assert len(found) == MAX_ROWS
    assert all(rank == 1 for _, _, rank, _ in found)
    both = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert sorted(place for *_, place in chosen_rows(np.array([0.1, 0.2]), both, np.arange(2), 3)) == [0, 1]


def test_names_are_the_shortest_that_differ(tmp_path):
    names = ["x/1/run", "x/2/run", "y/2/run"]
    assert short_names([tmp_path / name for name in names]) == names
    assert short_names([tmp_path / name for name in names[:2]]) == ["1/run", "2/run"]
    assert short_names([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert short_names([]) == []
