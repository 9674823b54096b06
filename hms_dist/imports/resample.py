"""Resampling to 200 Hz by polyphase filters, in blocks: any part of the result without computing the rest.

The same filter as `scipy.signal.resample_poly` (a Kaiser window of 10 zero crossings). A stretch is continued by
reflection at both ends, so no filter reaches across a gap.
"""

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ

Floats = NDArray[np.float64]
LARGEST_FACTORS = (1000, 5000, 20_000)
"""Rates such as 199.8 Hz have a ratio to 200 Hz of large numbers. It is rounded to a denominator of at most the first
of these that is exact enough."""
DRIFT = 1e-6
"""Relative error of a rounded ratio: less than 0.1 s in a day."""


def ratio_of(rate_hz: Fraction) -> Fraction:
    """Return output samples per input sample."""
    exact = RATE_HZ / rate_hz
    rounded = [exact.limit_denominator(largest) for largest in LARGEST_FACTORS]
    return next((ratio for ratio in rounded if abs(ratio / exact - 1) < DRIFT), rounded[-1])


def resampled(read: Callable[[int, int], Floats], num_samples: int, ratio: Fraction, first: int, last: int) -> Floats:
    """Compute output samples [first, last) of a stretch of `num_samples`; `read(first, last)` returns input samples
    [channels, samples].

    NaN stays NaN, and so do the output samples whose filter touches one.
    """
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return read(first, last)
    from scipy.signal import resample_poly

    # Blocks begin at multiples of `up` outputs, which are multiples of `down` inputs, so all blocks agree.
    taps = _taps(up, down)
    context = -(-(len(taps) // 2) // (up * down))
    begin, end = first // up - context, -(-last // up) + context
    here = read(max(begin * down, 0), min(end * down, num_samples))
    margins = (max(-begin * down, 0), max(end * down - num_samples, 0))
    if any(margins):
        here = np.pad(here, ((0, 0), margins), mode="reflect" if here.shape[1] > 1 else "edge")
    part = slice(first - begin * up, last - begin * up)
    invalid = np.isnan(here)
    if not invalid.any():
        return np.asarray(resample_poly(here, up, down, axis=1, window=taps)[:, part])
    values = resample_poly(np.where(invalid, 0.0, here), up, down, axis=1, window=taps)
    touched = resample_poly(invalid.astype(np.float64), up, down, axis=1, window=np.ones_like(taps)) > 0.5
    return np.asarray(np.where(touched, np.nan, values)[:, part])


@lru_cache(maxsize=8)
def _taps(up: int, down: int) -> Floats:
    """Compute the low-pass filter that `resample_poly` designs by default."""
    from scipy.signal import firwin

    largest = max(up, down)
    return np.asarray(firwin(20 * largest + 1, 1 / largest, window=("kaiser", 5.0)))
