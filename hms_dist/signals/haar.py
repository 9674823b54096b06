"""Haar wavelet transform (db1) of sliding windows, reduced to mean and standard deviation of each level.

Mallat's pyramid with two-sample filters: each level halves the approximation by sums and differences of neighbours,
divided by the square root of 2. Coefficients are not stored.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit_any_order

BANDS = ("cA5", "cD5", "cD4", "cD3", "cD2", "cD1")
"""The approximation and the details, slow to fast, in the order of the statistics."""


def haar_statistics(
    signals: NDArray[np.float64], starts: NDArray[np.int64], window_samples: int
) -> NDArray[np.float64]:
    """Compute statistics of windows of `signals` [signals, samples] (finite): float64 [signals, 12, windows], same
    unit.

    Window i is samples [starts[i], starts[i] + window_samples). Rows: mean and (population) standard deviation of cA5,
    then of cD5, ... cD1. If a level has an odd number of values, the last is paired with itself.
    """
    return _statistics(signals, starts, window_samples, np.sqrt(0.5))


@jit_any_order
def _statistics(
    signals: NDArray[np.float64], starts: NDArray[np.int64], window_samples: int, gain: float
) -> NDArray[np.float64]:
    result = np.empty((len(signals), 12, len(starts)))
    target, other, details = np.empty(window_samples), np.empty(window_samples), np.empty(window_samples)
    for number in range(len(signals)):
        for window in range(len(starts)):
            source, size = signals[number, starts[window] : starts[window] + window_samples], window_samples
            for row in range(10, -2, -2):  # cD1, ... cD5, and at index 0 the remaining approximation cA5
                band = details if row else source
                if row:
                    half = size // 2
                    for k in range(half):
                        first, second = source[2 * k], source[2 * k + 1]
                        target[k], band[k] = (first + second) * gain, (first - second) * gain
                    if size % 2:
                        target[half], band[half] = 2 * source[size - 1] * gain, 0.0
                    size -= half
                    source, target, other = target, other, target
                # Relative to one of the values, so that no digits are lost for any mean.
                pivot, total, squares = band[0], 0.0, 0.0
                for k in range(size):
                    deviation = band[k] - pivot
                    total += deviation
                    squares += deviation * deviation
                mean = total / size
                result[number, row, window] = pivot + mean
                result[number, row + 1, window] = np.sqrt(max(squares / size - mean * mean, 0.0))
    return result
