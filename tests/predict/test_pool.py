"""Pools against their formulas, and fits against brute force and known answers."""

import numpy as np
import pytest
from scipy.stats import gmean, rankdata

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.datasets import Dataset
from hms_dist.predict.fit import fit_pool, fit_simplex
from hms_dist.predict.pool import Pool, equal_pool
from hms_dist.results.metrics import kaggle_kl
from hms_dist.results.yes_no import log_loss

LAB = Dataset(name="lab", classes=("a", "b", "c"), target="yes_no")


def random_models(rng, num_models=3, num_rows=300, sharpness=1.0):
    """Predictions [models, rows, 6] around a common truth, each with noise of its own, and the truth."""
    truth = rng.dirichlet(np.full(6, 0.4), num_rows)
    noise = rng.normal(0, 1, (num_models, num_rows, 6)) * rng.uniform(0.3, 1.5, (num_models, 1, 1))
    values = np.log(truth + 0.02) * sharpness + noise
    powers = np.exp(values)
    return powers / powers.sum(axis=-1, keepdims=True), truth


@pytest.mark.parametrize("method", ["mean", "geometric", "rank_mean"])
def test_equal_weights_are_the_plain_means(method, rng):
    found, _ = random_models(rng, 4)
    plain = {
        "mean": lambda: found.mean(axis=0),
        "geometric": lambda: gmean(found, axis=0),
        "rank_mean": lambda: np.mean(
            [np.stack([rankdata(model[:, label]) for label in range(6)], axis=1) for model in found], axis=0
        ),
    }[method]()
    pooled = equal_pool(method, 4)(found)
    np.testing.assert_allclose(pooled, plain / plain.sum(axis=1, keepdims=True), rtol=1e-9)
    np.testing.assert_allclose(pooled.sum(axis=1), 1, rtol=1e-12)


def test_ranks_do_not_care_how_sure_a_model_is(rng):
    found, _ = random_models(rng, 2)
    surer = found.copy()
    surer[0] = found[0] ** 3
    np.testing.assert_allclose(equal_pool("rank_mean", 2)(found), equal_pool("rank_mean", 2)(surer), rtol=1e-12)


def test_a_probability_of_zero_leaves_a_finite_geometric_mean():
    found = np.array([[[1.0, 0, 0, 0, 0, 0]], [[0.0, 1, 0, 0, 0, 0]]])
    pooled = equal_pool("geometric", 2)(found)
    np.testing.assert_allclose(pooled[0, :2], 0.5, atol=1e-6)


def test_weights_of_two_models_agree_with_brute_force(rng):
    found, truth = random_models(rng, 2)
    (weight, _) = fit_simplex(found, truth)
    grid = np.linspace(0, 1, 2001)
    losses = [kaggle_kl(truth, w * found[0] + (1 - w) * found[1]) for w in grid]
    assert abs(weight - grid[np.argmin(losses)]) < 1e-3


@pytest.mark.parametrize("method", ["mean", "geometric"])
def test_no_point_near_the_fit_is_better(method, rng):
    found, truth = random_models(rng, 2)
    pool = fit_pool(method, found, truth)
    best = kaggle_kl(truth, pool(found))
    for _ in range(300):
        if method == "mean":
            weights = pool.weights
        else:
            weights = tuple(np.maximum(np.array(pool.weights) + rng.normal(0, 0.05, 2), 0))
        bias = tuple(np.array(pool.bias) + rng.normal(0, 0.05, 6))
        assert kaggle_kl(truth, Pool(method=method, weights=weights, bias=bias)(found)) > best - 1e-6


@pytest.mark.parametrize("method", ["mean", "geometric"])
@pytest.mark.parametrize("num_models", [1, 2, 7])
def test_on_its_own_rows_a_fit_is_never_worse_than_the_plain_mean(method, num_models, rng):
    for sharpness in (0.2, 1, 4):
        found, truth = random_models(rng, num_models, sharpness=sharpness)
        plain = kaggle_kl(truth, equal_pool(method, num_models)(found))
        assert kaggle_kl(truth, fit_pool(method, found, truth)(found)) <= plain + 1e-9


def test_the_model_that_is_the_truth_gets_all_the_weight(rng):
    found, truth = random_models(rng, 3, 500)
    truth = (truth + 0.01) / 1.06
    found[1] = truth
    np.testing.assert_allclose(fit_simplex(found, truth), [0, 1, 0], atol=1e-4)
    pool = fit_pool("geometric", found, truth)
    np.testing.assert_allclose(pool.weights, [0, 1, 0], atol=1e-2)
    np.testing.assert_allclose(pool.bias, 0, atol=2e-2)


def test_a_bias_that_was_put_in_is_found(rng):
    found, truth = random_models(rng, 1, 500)
    truth = (truth + 0.01) / 1.06
    bias = np.array([0.5, -0.3, 0, 0.2, -0.4, 0])
    found[0] = truth * np.exp(-bias)
    found /= found.sum(axis=-1, keepdims=True)
    for method in ("mean", "geometric"):
        pool = fit_pool(method, found, truth)
        np.testing.assert_allclose(np.array(pool.bias) - pool.bias[5], bias, atol=0.01)
        assert kaggle_kl(truth, pool(found)) < 1e-4


def test_a_class_that_nobody_chose_has_a_finite_bias(rng):
    found, truth = random_models(rng, 2)
    truth[:, 0] = 0
    truth /= truth.sum(axis=1, keepdims=True)
    assert np.isfinite(fit_pool("geometric", found, truth).bias).all()


def test_a_pool_survives_json():
    pool = Pool(method="mean", weights=(0.25, 0.75), bias=tuple(np.arange(6.0)))
    assert Pool.from_json(pool.to_json()) == pool
    with pytest.raises(UserError, match="method: unknown 'best'; one of: mean, geometric, rank_mean"):
        Pool.from_json({**pool.to_json(), "method": "best"})
    with pytest.raises(ValueError, match="finite weights of 0 or more"):
        Pool.from_json({**pool.to_json(), "weights": [-1, 2]})
    with pytest.raises(ValueError, match="a weight above 0"):
        Pool.from_json({**pool.to_json(), "weights": [0, 0]})
    assert Pool.from_json({**pool.to_json(), "method": "geometric", "weights": [0, 0]}).weights == (0, 0)
    assert list(pool.to_json()["bias"]) == list(CLASSES)


def yes_no_models(rng, num_models=3, num_rows=300):
    """Probabilities [models, rows, 3] around a common truth, each with noise, and labels, a third of them unknown."""
    logits = rng.normal(0, 2, (num_rows, 3))
    labels = (rng.random((num_rows, 3)) < 1 / (1 + np.exp(-logits))).astype(float)
    labels[rng.random(labels.shape) < 1 / 3] = np.nan
    noise = rng.normal(0, 1, (num_models, num_rows, 3)) * rng.uniform(0.3, 1.5, (num_models, 1, 1))
    return 1 / (1 + np.exp(-logits - noise)), labels


def test_equal_weights_of_yes_or_no_are_means_of_probabilities_and_of_log_odds(rng):
    found, _ = yes_no_models(rng)
    np.testing.assert_allclose(equal_pool("mean", 3, LAB)(found), found.mean(axis=0))
    odds = gmean(found / (1 - found), axis=0)
    np.testing.assert_allclose(equal_pool("geometric", 3, LAB)(found), odds / (1 + odds))
    ranks = np.mean([np.stack([rankdata(model[:, label]) for label in range(3)], axis=1) for model in found], axis=0)
    np.testing.assert_allclose(equal_pool("rank_mean", 3, LAB)(found), ranks / 300, rtol=1e-9)


@pytest.mark.parametrize("method", ["mean", "geometric"])
def test_fits_of_yes_or_no_have_the_least_log_loss_over_known_cells(method, rng):
    found, labels = yes_no_models(rng)
    pool = fit_pool(method, found, labels, LAB)
    best = log_loss(labels, pool(found))
    assert best <= log_loss(labels, equal_pool(method, 3, LAB)(found)) + 1e-9
    for _ in range(100):
        weights = pool.weights
        if method == "geometric":
            weights = tuple(np.maximum(np.array(weights) + rng.normal(0, 0.05, 3), 0))
        bias = tuple(np.array(pool.bias) + rng.normal(0, 0.05, 3))
        other = Pool(method=method, weights=weights, bias=bias, dataset=LAB)
        assert log_loss(labels, other(found)) > best - 1e-6
    unknown = np.where(np.isnan(labels), 0.987, found)
    np.testing.assert_allclose(fit_pool(method, unknown, labels, LAB).weights, pool.weights, atol=1e-3)


def test_the_simplex_of_yes_or_no_agrees_with_brute_force(rng):
    found, labels = yes_no_models(rng, 2)
    (weight, _) = fit_simplex(found, labels, "yes_no")
    grid = np.linspace(0, 1, 1001)
    losses = [log_loss(labels, w * found[0] + (1 - w) * found[1]) for w in grid]
    assert abs(weight - grid[np.argmin(losses)]) < 2e-3


def test_a_pool_is_stored_by_the_names_of_its_classes():
    pool = Pool(method="mean", weights=(0.5, 0.5), bias=(0.0, 1.0, 2.0), dataset=LAB)
    assert pool.to_json()["bias"] == {"a": 0.0, "b": 1.0, "c": 2.0}
    assert Pool.from_json(pool.to_json(), LAB) == pool
    with pytest.raises(KeyError, match="seizure"):
        Pool.from_json(pool.to_json())
