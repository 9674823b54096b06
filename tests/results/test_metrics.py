"""Kaggle's metric: the official examples, its refusals, and scipy as an oracle."""

import numpy as np
import pytest
from scipy.special import rel_entr
from sklearn.metrics import confusion_matrix, label_ranking_average_precision_score

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES
from hms_dist.results.metrics import (
    class_kl,
    consensus_confusion,
    constant_prediction,
    gap_closed,
    kaggle_kl,
    label_ranking,
    log_losses,
    row_kl,
    score,
)


def random_tables(rng, rows=50):
    return rng.dirichlet(np.full(6, 0.3), rows), rng.dirichlet(np.ones(6), rows)


def test_official_examples():
    hard = np.array([[0, 1], [1, 0], [1, 0], [0, 1.0]])
    soft = np.array([[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]])
    assert kaggle_kl(hard, soft) == pytest.approx(0.216161, abs=1e-6)
    assert kaggle_kl(hard, hard) == pytest.approx(0.0, abs=1e-14)
    truth = np.array([[0, 0.1, 0.9], [0.5, 0.5, 0], [0.5, 0.5, 0]])
    guess = np.array([[0.2, 0.1, 0.7], [0.3, 0.5, 0.2], [0.5, 0.5, 0]])
    assert kaggle_kl(truth, guess) == pytest.approx(0.160531, abs=1e-6)


def test_scipy_agrees_on_random_tables(rng):
    truth, guess = random_tables(rng)
    truth[::3] = np.eye(6)[np.arange(len(truth[::3])) % 6]
    assert row_kl(truth, guess) == pytest.approx(rel_entr(truth, guess).sum(axis=1))
    assert class_kl(truth, guess).sum() == pytest.approx(kaggle_kl(truth, guess))


def test_a_zero_where_the_truth_is_positive_costs_ln_of_1e15():
    assert kaggle_kl(np.array([[1.0, 0]]), np.array([[0, 1.0]])) == pytest.approx(15 * np.log(10))


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (lambda t: t * 1.01, "expected a sum of 1"),
        (lambda t: t - 0.5, "expected probabilities in"),
        (lambda t: np.where(t == t.max(), np.nan, t), "expected probabilities in"),
        (lambda t: t[:-1], "expected 50 rows"),
        (lambda t: np.full(t.shape, "x"), "expected numbers"),
        (lambda t: t[0], "expected rows of probabilities"),
    ],
)
def test_what_kaggle_refuses_is_refused(corrupt, message, rng):
    truth, guess = random_tables(rng)
    with pytest.raises(UserError, match=message):
        kaggle_kl(truth, corrupt(guess))


def test_the_truth_is_verified_too(rng):
    truth, guess = random_tables(rng)
    with pytest.raises(UserError, match="solution: row 0: expected a sum of 1"):
        kaggle_kl(truth * 0.9, guess)


def test_constant_prediction_is_the_best_constant(rng):
    truth, _ = random_tables(rng)
    best = kaggle_kl(truth, constant_prediction(truth))
    for _ in range(20):
        other = np.broadcast_to(rng.dirichlet(np.ones(6)), truth.shape)
        assert best <= kaggle_kl(truth, other)


def test_score_reports_strata_and_gap(rng):
    true = rng.dirichlet(np.full(6, 0.5), 400)
    voters = rng.choice([3, 14], 400)
    votes = np.stack([rng.multinomial(n, p) for n, p in zip(voters, true, strict=True)])
    shares = votes / votes.sum(axis=1, keepdims=True)
    result = score(shares, true, voters, true, classes=HMS_CLASSES)
    assert set(result["strata"]) == {"all", "votes_1_to_7", "votes_from_8"}
    assert result["strata"]["all"]["gap_closed"] == pytest.approx(1)
    parts = [result["strata"][name] for name in ("votes_1_to_7", "votes_from_8")]
    assert sum(p["num_rows"] * p["kl"] for p in parts) / 400 == pytest.approx(result["kl"])
    assert gap_closed(1.0, 1.0, 0.5) == 0


def test_label_ranking_is_scikit_learns(rng):
    """Ties in the scores, rows without a label and with all of them included."""
    labels = rng.random((200, 6)) < rng.choice([0.0, 0.2, 0.6, 1.0], (200, 1))
    for scores in (rng.random((200, 6)), rng.integers(0, 3, (200, 6)).astype(float)):
        assert label_ranking(labels, scores) == pytest.approx(label_ranking_average_precision_score(labels, scores))


def test_label_ranking_of_one_label_is_the_mean_of_one_over_its_rank():
    scores = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]])
    assert label_ranking(np.eye(3, dtype=bool), scores) == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)


def test_log_losses_against_a_loop(rng):
    truth, _ = random_tables(rng, 40)
    truth = np.where(truth < 0.15, 0, truth)
    guess = rng.random(truth.shape)
    guess[0] = [0, 1, 0, 1, 0, 1]
    sums, counts = [0.0, 0.0], [0, 0]
    for p, q in zip(truth.ravel(), guess.ravel(), strict=True):
        sure = min(max(q, 1e-15), 1 - 1e-15)
        sums[int(p == 0)] -= p * np.log(sure) + (1 - p) * np.log(1 - sure)
        counts[int(p == 0)] += 1
    assert log_losses(truth, guess) == pytest.approx([sums[0] / counts[0], sums[1] / counts[1]])
    assert log_losses(np.full((2, 6), 1 / 6), np.full((2, 6), 0.5))[1] == 0


def test_confusion_agrees_with_scikit_learn(rng):
    truth, guess = random_tables(rng, 200)
    expected = confusion_matrix(truth.argmax(axis=1), guess.argmax(axis=1), labels=range(6))
    np.testing.assert_array_equal(consensus_confusion(truth, guess), expected)
    assert consensus_confusion(truth, guess).sum() == 200
