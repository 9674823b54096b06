"""Quantiles of arbitrarily long signals in bounded memory: a histogram with bins of equal relative width.

Counts of fixed bins do not depend on the order of the values, unlike the markers and centroids of P2 and t-digest, and
their error is bounded.
"""

from math import ceil, log

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit

LEAST = 1e-3
"""Magnitudes below this count as 0."""
MOST = 1e7
"""Larger magnitudes count as this one."""
RATIO = 1.001
"""Ratio of the edges of every bin: the error of a quantile is 0.05 %, half a bin, between LEAST and MOST."""
BINS_A_SIDE = ceil(log(MOST / LEAST) / log(RATIO))


class QuantileCounter:
    """Counts the values of several signals and computes their quantiles. 0.37 MB per signal."""

    def __init__(self, num_signals: int) -> None:
        self._counts = np.zeros((num_signals, 2 * BINS_A_SIDE + 1), np.int64)

    def add(self, signals: NDArray[np.float64], counted: NDArray[np.bool_]) -> None:
        """Count the values of finite `signals` [signals, samples], any unit, where `counted` (same shape) is true."""
        _count(signals, counted, self._counts, BINS_A_SIDE, 1 / LEAST, 1 / log(RATIO))

    def totals(self) -> NDArray[np.int64]:
        """Number of values counted so far [signals]."""
        return np.asarray(self._counts.sum(axis=1))

    def quantile(self, share: float) -> NDArray[np.float64]:
        """Smallest value with at least `share` (above 0, up to 1) of the signal at or below it [signals].

        The geometric mean of its bin's edges; NaN for a signal without values.
        """
        ranks = np.maximum(np.ceil(share * self.totals() * (1 - 1e-12)), 1)  # 0.05 * 20 is above 1 in floating point
        places = (np.cumsum(self._counts, axis=1) < ranks[:, None]).sum(axis=1) - BINS_A_SIDE
        magnitudes = np.where(places == 0, 0.0, LEAST * RATIO ** (np.abs(places) - 0.5))
        return np.where(self.totals() > 0, np.sign(places) * magnitudes, np.nan)


@jit
def _count(
    signals: NDArray[np.float64],
    counted: NDArray[np.bool_],
    counts: NDArray[np.int64],
    bins_a_side: int,
    scale: float,
    bins_an_e: float,
) -> None:
    """Add to `counts` [signals, 2 * bins + 1]: the middle bin is 0, negative values are to its left."""
    for row in range(len(signals)):
        for k in range(signals.shape[1]):
            if counted[row, k]:
                magnitude = abs(signals[row, k]) * scale
                place = min(int(np.log(magnitude) * bins_an_e) + 1, bins_a_side) if magnitude >= 1 else 0
                counts[row, bins_a_side + (place if signals[row, k] > 0 else -place)] += 1
