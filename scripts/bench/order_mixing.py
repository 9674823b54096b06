"""Measures of how well an order of rows is mixed: the cost of `locality`."""

import numpy as np
from numpy.typing import NDArray


def distinct_per_step(ids: NDArray[np.int64], global_batch: int) -> float:
    """Mean number of distinct ids (EEGs, patients) per step. `ids` [rows]: ids of an epoch's rows, in order."""
    steps = np.sort(ids.reshape(-1, global_batch), axis=1)
    return float(1 + (np.diff(steps, axis=1) != 0).sum(axis=1).mean())


def distinct_when_shuffled(ids: NDArray[np.int64], global_batch: int) -> float:
    """Expected number of distinct ids among `global_batch` rows of `ids` [rows], drawn without replacement.

    Each id is absent with the hypergeometric probability C(N - n, B) / C(N, B).
    """
    from scipy.special import gammaln

    counts = np.unique(ids, return_counts=True)[1]
    others = (len(ids) - counts).astype(np.float64)
    possible = others >= global_batch
    others = np.where(possible, others, global_batch)
    absent = gammaln(others + 1) - gammaln(others - global_batch + 1)
    absent -= gammaln(len(ids) + 1) - gammaln(len(ids) - global_batch + 1)
    return float((1 - np.where(possible, np.exp(absent), 0)).sum())


def design_effect(targets: NDArray[np.float64], global_batch: int) -> float:
    """Design effect (Kish, Survey Sampling, 1965): variance of a step's mean target relative to a full shuffle.

    `targets` [rows, classes]: targets of an epoch's rows, in order, at least two steps. A step of B rows with design
    effect d is as informative about the labels as B / d rows drawn at random. Variances are summed over the classes
    and corrected for drawing without replacement.
    """
    num_steps = len(targets) // global_batch
    means = targets.reshape(num_steps, global_batch, -1).mean(axis=1)
    between = ((means - targets.mean(axis=0)) ** 2).sum() / (num_steps - 1)
    spread = ((targets - targets.mean(axis=0)) ** 2).sum() / (len(targets) - 1)
    return float(between / (spread / global_batch))
