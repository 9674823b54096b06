"""Pooling of several models' predictions: arithmetic, geometric and rank mean, with weights and a bias per class.

Pools work on logits. For shares these are logarithms, inverted by a softmax; for independent yes/no classes log-odds,
inverted by a sigmoid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import one_of
from hms_dist.datasets import HMS, Dataset, Target
from hms_dist.results.metrics import SMALLEST

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A pooling rule with its parameters, for the rows that it was fitted on and for new ones."""

    method: str
    """One of METHODS."""
    weights: tuple[float, ...]
    """Weight of each model, 0 or more. They sum to 1, except for geometric: a sum above 1 sharpens, one
    below 1 flattens."""
    bias: tuple[float, ...] = ()
    """Added to the logit of each class. Empty: none."""
    dataset: Dataset = HMS
    """The data set whose classes are pooled."""

    def __call__(self, probabilities: Floats) -> Floats:
        """Pool [models, rows, classes] to [rows, classes]; shares sum to 1."""
        kind = self.dataset.target
        pooled = METHODS[self.method](probabilities, np.array(self.weights), kind)
        return probabilities_of(pooled + np.array(self.bias or 0.0), kind)

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        values = self.bias or (0.0,) * self.dataset.num_classes
        bias = dict(zip(self.dataset.classes, values, strict=True))
        return {"method": self.method, "weights": list(self.weights), "bias": bias}

    @staticmethod
    def from_json(value: dict[str, Any], dataset: Dataset = HMS) -> "Pool":
        """Inverse of `to_json`. Raises KeyError, TypeError or ValueError for invalid values."""
        one_of("method", value["method"], list(METHODS))
        bias = tuple(float(value["bias"][name]) for name in dataset.classes)
        weights = tuple(float(weight) for weight in value["weights"])
        if not (min(weights, default=-1.0) >= 0 and np.isfinite([*weights, *bias]).all()):
            raise ValueError("expected finite weights of 0 or more")
        if value["method"] != "geometric" and sum(weights) == 0:  # a geometric pool without weights is its bias
            raise ValueError("expected a weight above 0")
        return Pool(method=value["method"], weights=weights, bias=bias, dataset=dataset)


def equal_pool(method: str, num_models: int, dataset: Dataset = HMS) -> Pool:
    """Pool with equal weights and no bias."""
    return Pool(method=method, weights=(1 / num_models,) * num_models, dataset=dataset)


def logits_of(probabilities: Floats, kind: Target) -> Floats:
    """Compute natural logarithms of shares, or log-odds of yes/no probabilities, clipped as by Kaggle; same shape."""
    if kind == "shares":
        return np.log(np.maximum(probabilities, SMALLEST))
    clipped = np.clip(probabilities, SMALLEST, 1 - SMALLEST)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def probabilities_of(logits: Floats, kind: Target) -> Floats:
    """Compute the softmax over the last axis, or the sigmoid of each value; same shape."""
    if kind == "yes_no":
        from scipy.special import expit

        return np.asarray(expit(logits))
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def arithmetic(probabilities: Floats, weights: Floats, kind: Target) -> Floats:
    """Logits of the weighted mean [rows, classes]: a linear pool (Stone, 1961)."""
    return logits_of(np.tensordot(weights, probabilities, axes=1), kind)


def geometric(probabilities: Floats, weights: Floats, kind: Target) -> Floats:
    """Weighted sum of logits [rows, classes]: a log-linear pool (Genest and Zidek, 1986)."""
    return np.tensordot(weights, logits_of(probabilities, kind), axes=1)


def rank_mean(probabilities: Floats, weights: Floats, kind: Target) -> Floats:
    """Logits of the weighted mean of ranks [rows, classes]: a weighted Borda count (1781).

    The rank of a prediction is its position among all rows for its model and class, ties averaged, divided by the
    number of rows: 0 to 1. Only the order of the rows matters, not how confident a model is.
    """
    from scipy.stats import rankdata

    return arithmetic(rankdata(probabilities, axis=1) / probabilities.shape[1], weights, kind)


METHODS = {"mean": arithmetic, "geometric": geometric, "rank_mean": rank_mean}
"""Name -> function of probabilities [models, rows, classes], weights [models] and kind of targets to logits."""
