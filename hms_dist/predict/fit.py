"""Fit of ensemble weights and a bias per class by convex optimisation of the KL (as the 3rd place blends).

Linear pool: -sum t ln(sum_m w_m p_m) is convex in the weights on the simplex. Log-linear pool: with q the softmax of
sum_m w_m ln p_m + b, -sum t ln q is convex in (w, b) together. Every minimum found is therefore global.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hms_dist.predict.members import Labelled
from hms_dist.predict.pool import Pool, arithmetic, equal_pool, logs, normalised

Floats = NDArray[np.float64]

RIDGE = 1e-6
"""Half this times the squared distance from the plain mean is added to the log-linear objective. It selects one of
equally good solutions, keeps the bias of a class without votes finite, and is 0 at the start, so that the fit is never
worse than the plain mean on its own rows."""
METHODS_FITTED = ("mean", "geometric")


def fit_pool(method: str, probabilities: Floats, targets: Floats) -> Pool:
    """Find the pool with the least KL to `targets` [rows, 6] on predictions [models, rows, 6].

    mean: weights on the simplex first, then, for these weights, the bias; each step is convex. geometric: non-negative
    weights and bias together.
    """
    start = equal_pool(method, len(probabilities))
    if method == "mean":
        weights = fit_simplex(probabilities, targets)
        _, bias = _fit_log_linear(arithmetic(probabilities, weights)[None], targets, np.ones(1), fixed=True)
    else:
        weights, bias = _fit_log_linear(logs(probabilities), targets, np.array(start.weights), fixed=False)
    return replace(start, weights=tuple(weights.tolist()), bias=tuple(bias.tolist()))


def cross_fitted(method: str, labelled: Labelled) -> Floats:
    """Predictions [rows, 6] of each fold by a pool fitted on the other folds: an estimate for new patients."""
    found = np.empty_like(labelled.targets)
    for fold in labelled.folds:
        mine, members = labelled.held_out(fold), labelled.members.probabilities
        found[mine] = fit_pool(method, members[:, ~mine], labelled.targets[~mine])(members[:, mine])
    return found


def fit_simplex(probabilities: Floats, targets: Floats) -> Floats:
    """Weights [models], non-negative with sum 1, of the linear pool with the least KL; sequential least squares."""
    from scipy.optimize import minimize

    num_models = len(probabilities)
    start = np.full(num_models, 1 / num_models)

    def objective(weights: Floats) -> tuple[float, Floats]:
        pooled = np.maximum(np.tensordot(weights, probabilities, axes=1), 1e-300)
        slope = -np.einsum("mrc,rc->m", probabilities, targets / pooled) / len(targets)
        return float(-(targets * np.log(pooled)).sum() / len(targets)), slope

    sum_is_1 = {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    options = {"ftol": 1e-13, "maxiter": 1000}
    found = minimize(
        objective, start, jac=True, method="SLSQP", bounds=[(0, 1)] * num_models, constraints=[sum_is_1],
        options=options,
    )  # fmt: skip
    weights = np.clip(found.x, 0, None)
    weights /= weights.sum()
    return weights if objective(weights)[0] <= objective(start)[0] else start


def _fit_log_linear(values: Floats, targets: Floats, start: Floats, *, fixed: bool) -> tuple[Floats, Floats]:
    """Non-negative weights [models] and bias [6] of the log-linear pool of logarithms [models, rows, 6].

    `fixed`: the weights stay at `start`. L-BFGS-B.
    """
    from scipy.optimize import minimize

    num_models, num_classes = len(values), values.shape[-1]
    origin = np.concatenate([start, np.zeros(num_classes)])

    def objective(point: Floats) -> tuple[float, Floats]:
        pooled = normalised(np.tensordot(point[:num_models], values, axes=1) + point[num_models:])
        error = (pooled - targets) / len(targets)
        slope = np.concatenate([np.einsum("mrc,rc->m", values, error), error.sum(axis=0)])
        loss = -(targets * logs(pooled)).sum() / len(targets)
        away = point - origin
        return float(loss + RIDGE / 2 * away @ away), slope + RIDGE * away

    bounds = [(weight, weight) if fixed else (0, None) for weight in start] + [(None, None)] * num_classes
    options = {"ftol": 1e-14, "gtol": 1e-9, "maxiter": 5000, "maxfun": 20000}
    found = minimize(objective, origin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x[:num_models], found.x[num_models:]
