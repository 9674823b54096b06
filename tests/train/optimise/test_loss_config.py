"""Weights by votes and smoothed targets against slow versions; labels that are none."""

import numpy as np
import pytest

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.labels.table import num_voters, targets_of
from hms_dist.train.optimise.loss_config import LossConfig, check_targets, confusion, row_weights, training_targets


def drawn_votes(rng: np.random.Generator, rows: int = 200) -> np.ndarray:
    return np.array([rng.multinomial(n, rng.dirichlet(np.full(6, 0.5))) for n in rng.integers(1, 25, rows)])


def test_weights_are_what_the_options_say(rng: np.random.Generator) -> None:
    votes = num_voters(drawn_votes(rng))
    assert row_weights(LossConfig(), votes).tolist() == [1.0] * len(votes)
    np.testing.assert_allclose(row_weights(LossConfig(vote_power=0.5), votes), np.sqrt(votes))
    config = LossConfig(vote_power=1, vote_steps=((1, 0.3), (4, 0.5), (10, 1.0)))
    expected = [n * (0.3 if n < 4 else 0.5 if n < 10 else 1.0) for n in votes]
    np.testing.assert_allclose(row_weights(config, votes), expected)


def test_smoothing_spreads_each_vote_as_sure_voters_do(rng: np.random.Generator) -> None:
    votes = drawn_votes(rng)
    targets, counts = targets_of(votes), num_voters(votes)
    train_rows = np.sort(rng.permutation(len(votes))[:150])
    found = training_targets(LossConfig(smooth_below=8), targets, counts, train_rows)
    sure = [row for row in train_rows if counts[row] >= 8]
    for row in range(len(votes)):
        expected = targets[row]
        if counts[row] < 8:
            expected = np.zeros(6)
            for label in range(6):
                like = [targets[other] for other in sure if targets[other].argmax() == label]
                expected += targets[row, label] * (np.mean(like, axis=0) if like else np.eye(6)[label])
        np.testing.assert_allclose(found[row], expected, atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert training_targets(LossConfig(), targets, counts, train_rows) is targets


def test_validation_rows_do_not_touch_the_confusion_of_voters(rng: np.random.Generator) -> None:
    votes = drawn_votes(rng)
    train_rows, config = np.arange(100), LossConfig(smooth_below=6)
    before = training_targets(config, targets_of(votes), num_voters(votes), train_rows)
    votes[100:] = drawn_votes(rng, 100)
    after = training_targets(config, targets_of(votes), num_voters(votes), train_rows)
    np.testing.assert_array_equal(before[:100], after[:100])


def test_classes_that_nobody_is_sure_of_stay_what_they_are() -> None:
    assert confusion(np.empty((0, 6))).tolist() == np.eye(6).tolist()
    matrix = confusion(np.array([[0.75, 0.25, 0, 0, 0, 0]]))
    assert matrix[0].tolist() == [0.75, 0.25, 0, 0, 0, 0]
    assert matrix[1:].tolist() == np.eye(6)[1:].tolist()


def test_a_label_that_is_no_distribution_is_named(rng: np.random.Generator) -> None:
    targets = targets_of(drawn_votes(rng, 5))
    keys = [f"{row}-0" for row in range(5)]
    check_targets(targets, keys)
    for damaged, found in (
        ([0.5, 0.5, 0.5, 0, 0, 0], r"0.5, 0.5, 0.5, 0, 0, 0 \(sum 1.5; 2 such rows"),
        ([1.5, -0.5, 0, 0, 0, 0], r"1.5, -0.5, 0, 0, 0, 0 \(sum 1; 2 such rows"),
        ([np.nan] * 6, r"nan, .*\(sum nan; 2 such rows"),
    ):
        wrong = targets.copy()
        wrong[3], wrong[4] = damaged, 2
        with pytest.raises(
            UserError, match=f"labels: row 3-0: expected six probabilities with a sum of 1, found {found}"
        ):
            check_targets(wrong, keys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mse"}, "loss.name: unknown 'mse'; one of: kl, bce, ce"),
        ({"vote_power": -1}, "vote_power: expected 0 or more, found -1"),
        ({"vote_steps": [[3, 1.0]]}, r"vote_steps: expected ascending votes from 1 on, found \[3\]"),
        ({"vote_steps": [[1, 1.0], [1, 2.0]]}, r"vote_steps: expected ascending votes from 1 on, found \[1, 1\]"),
        ({"vote_steps": [[1, 0.0]]}, r"vote_steps: expected weights above 0, found \[0.0\]"),
        ({"smooth_below": 1}, "smooth_below: expected at least 2 votes, or null, found 1"),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(LossConfig, options)
