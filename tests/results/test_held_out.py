"""Held-out figures against plain loops and scikit-learn, and their bootstrap intervals against draws made by hand."""

import numpy as np
import pytest
from scipy.special import rel_entr
from sklearn.metrics import average_precision_score, recall_score, roc_auc_score

from hms_dist.core.keyed import keyed_uniform
from hms_dist.results.bootstrap import PatientDraws, bootstrap_interval, interval_of, rank_areas
from hms_dist.results.held_out import Estimate, advantage, class_scores, held_out_figures, overall, verdict
from hms_dist.results.metric_kinds import KlMetric, LogLossMetric

CLASSES = ("a", "b", "c")
KL, LOG_LOSS = KlMetric(CLASSES), LogLossMetric(CLASSES)


@pytest.fixture
def tables(rng):
    """Shares of votes, predictions of moderate quality, and patients with several rows each."""
    truth = rng.dirichlet(np.full(3, 0.5), 60)
    found = 0.5 * truth + 0.5 * rng.dirichlet(np.ones(3), 60)
    return truth, found, np.repeat(np.arange(20), 3)


def hand_draws(num_patients: int, num_draws: int, seed: int = 0) -> list[np.ndarray]:
    return [
        (keyed_uniform(seed, draw, np.arange(num_patients)) * num_patients).astype(int) for draw in range(num_draws)
    ]


def test_draws_are_keyed_and_of_whole_patients() -> None:
    patients = np.array([7, 7, 3, 9, 3])
    draws = PatientDraws(patients=patients, num_draws=50, seed=4)
    for times, chosen in zip(draws.times, hand_draws(3, 50, 4), strict=True):
        np.testing.assert_array_equal(times, np.bincount(chosen, minlength=3))
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    of_rows = np.concatenate(list(draws.row_times(np.arange(5))))
    np.testing.assert_allclose(draws.sums(values), of_rows @ values)


def test_the_interval_is_that_of_draws_made_by_hand(tables) -> None:
    truth, found, patients = tables
    values = rel_entr(truth, found).sum(1)
    means = [values.reshape(20, 3)[chosen].mean() for chosen in hand_draws(20, 1000)]
    estimate = overall(KL, truth, found, patients)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.interval == pytest.approx(np.quantile(means, [0.025, 0.975]))


def test_a_comparison_is_paired(tables) -> None:
    truth, found, patients = tables
    better_by = advantage(KL, truth, found, KL.constant(truth), patients)
    differences = (rel_entr(truth, truth.mean(0)) - rel_entr(truth, found)).sum(1)
    assert better_by.value == pytest.approx(differences.mean())
    assert better_by.interval == pytest.approx(bootstrap_interval(differences, patients))
    shifted = advantage(KL, truth, found, found, patients)
    assert (shifted.value, shifted.interval) == (0, (0, 0))


@pytest.mark.parametrize("ties", [False, True])
def test_areas_of_weighted_rows_are_scikit_learns(rng, ties: bool) -> None:
    labels, scores = rng.random(40) < 0.4, rng.random(40)
    scores = np.sort(np.round(scores, 1) if ties else scores)[::-1]
    labels[:2] = [True, False]
    times = rng.integers(0, 4, (5, 40)).astype(float)
    times[:, :2] = 1
    roc, precision = rank_areas(labels, scores, times)
    for draw, weights in enumerate(times):
        assert roc[draw] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights))
        assert precision[draw] == pytest.approx(average_precision_score(labels, scores, sample_weight=weights))
    none = rank_areas(labels, scores, times * ~labels)
    assert np.isnan(none).all()


def test_figures_of_classes(tables) -> None:
    truth, found, patients = tables
    of, decided = truth.argmax(1), found.argmax(1)
    items = class_scores(KL, CLASSES, truth, found, patients)
    for number, item in enumerate(items):
        assert item.num_rows == (of == number).sum()
        assert item.part.value == pytest.approx(rel_entr(truth, found)[:, number].mean())
        assert item.auroc.value == pytest.approx(roc_auc_score(of == number, found[:, number]))
        assert item.auprc.value == pytest.approx(average_precision_score(of == number, found[:, number]))
        assert item.sensitivity.value == pytest.approx(recall_score(of == number, decided == number))
        assert item.specificity.value == pytest.approx(recall_score(of != number, decided != number))
        for figure in (item.part, item.auroc, item.auprc, item.sensitivity, item.specificity):
            assert figure.interval is not None
            assert figure.interval[0] <= figure.interval[1]
    assert sum(item.part.value for item in items) == pytest.approx(KL.value(truth, found))


def test_unknown_cells_are_left_out(rng) -> None:
    truth = (rng.random((40, 3)) < 0.5).astype(float)
    truth[:4, 0] = [0, 1, 0, 1]
    truth[10:20, 0], truth[:, 2] = np.nan, np.nan
    found, patients = rng.random((40, 3)), np.arange(40) // 2
    first, _, last = class_scores(LOG_LOSS, CLASSES, truth, found, patients)
    known = np.isfinite(truth[:, 0])
    assert first.auroc.value == pytest.approx(roc_auc_score(truth[known, 0], found[known, 0]))
    assert first.sensitivity.value == pytest.approx(recall_score(truth[known, 0], found[known, 0] >= 0.5))
    assert first.part.value == pytest.approx(LOG_LOSS.parts(truth, found)[0])
    assert np.isnan([last.part.value, last.auroc.value, last.calibration_error]).all()
    assert last.to_json()["auroc"] == {"value": None, "interval": None}


def test_one_patient_has_no_interval(tables) -> None:
    truth, found, patients = tables
    figures = held_out_figures(KL, CLASSES, truth, found, np.zeros_like(patients))
    assert figures["kl"]["interval"] is None
    assert all(item["auroc"]["interval"] is None for item in figures["classes"].values())
    assert interval_of(np.r_[np.full(6, np.nan), np.ones(94)], 9) is None
    assert interval_of(np.r_[np.full(5, np.nan), np.ones(95)], 9) == (1, 1)


@pytest.mark.parametrize(
    ("estimate", "words", "is_worse"),
    [
        (Estimate(0.2, (0.1, 0.3)), "better than x by 0.2000 KL (95% interval 0.1000 to 0.3000)", False),
        (Estimate(-0.2, (-0.3, -0.1)), "worse than x by 0.2000 KL (95% interval 0.1000 to 0.3000)", True),
        (Estimate(0.2, (-0.1, 0.3)), "the interval includes 0", False),
        (Estimate(0.2), "no interval: a bootstrap over patients needs several", False),
    ],
)
def test_verdicts(estimate: Estimate, words: str, is_worse: bool) -> None:
    text, found = verdict(estimate, KL, "x")
    assert words in text
    assert found == is_worse
