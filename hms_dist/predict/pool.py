"""Pooling of several models' predictions: arithmetic, geometric and rank mean, with weights and a bias per class."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import one_of
from hms_dist.labels.table import CLASSES
from hms_dist.results.metrics import SMALLEST

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pooling rule with its parameters, for the rows that it was fitted on and for new ones."""

    method: str
    """One of METHODS."""
    weights: tuple[float, ...]
    """Weight of each model, 0 or more. They sum to 1, except for geometric, where the sum sharpens or flattens."""
    bias: tuple[float, ...] = (0.0,) * len(CLASSES)
    """Added to the logarithm of each class before the row is normalised."""

    def __call__(self, probabilities: Floats) -> Floats:
        """Pool [models, rows, 6] to [rows, 6] with sums 1."""
        return normalised(METHODS[self.method](probabilities, np.array(self.weights)) + np.array(self.bias))

    def to_json(self) -> dict[str, Any]:
        """The JSON value."""
        bias = dict(zip(CLASSES, self.bias, strict=True))
        return {"method": self.method, "weights": list(self.weights), "bias": bias}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Pool":
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for invalid values."""
        one_of("method", value["method"], list(METHODS))
        bias = tuple(float(value["bias"][name]) for name in CLASSES)
        weights = tuple(float(weight) for weight in value["weights"])
        if not (min(weights, default=-1.0) >= 0 and np.isfinite([*weights, *bias]).all()):
            raise ValueError("expected finite weights of 0 or more")
        if value["method"] != "geometric" and sum(weights) == 0:  # a geometric pool without weights is its bias
            raise ValueError("expected a weight above 0")
        return Pool(method=value["method"], weights=weights, bias=bias)


def equal_pool(method: str, num_models: int) -> Pool:
    """Pool with equal weights and no bias."""
    return Pool(method=method, weights=(1 / num_models,) * num_models)


def logs(probabilities: Floats) -> Floats:
    """Natural logarithms, of values clipped as Kaggle does."""
    return np.log(np.maximum(probabilities, SMALLEST))


def normalised(values: Floats) -> Floats:
    """Softmax over the last axis: logarithms [rows, classes] to probabilities."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def arithmetic(probabilities: Floats, weights: Floats) -> Floats:
    """Logarithm of the weighted mean [rows, classes]: a linear pool."""
    return logs(np.tensordot(weights, probabilities, axes=1))


def geometric(probabilities: Floats, weights: Floats) -> Floats:
    """Weighted sum of logarithms [rows, classes]: a log-linear pool."""
    return np.tensordot(weights, logs(probabilities), axes=1)


def rank_mean(probabilities: Floats, weights: Floats) -> Floats:
    """Logarithm of the weighted mean of ranks [rows, classes].

    The rank of a prediction is its position among all rows for its model and class, ties averaged, divided by the
    number of rows: 0 to 1. Only the order of the rows matters, not how confident a model is.
    """
    from scipy.stats import rankdata

    return arithmetic(rankdata(probabilities, axis=1) / probabilities.shape[1], weights)


METHODS = {"mean": arithmetic, "geometric": geometric, "rank_mean": rank_mean}
"""Name -> function of probabilities [models, rows, classes] and weights [models] to logarithms."""
