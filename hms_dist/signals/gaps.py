"""Filling of gaps: samples that were not recorded or are not finite.

The rules are those of the 16th place's traces and of the published spectrograms, and linear interpolation.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

GapPolicy = Literal["zero", "mean", "interpolate"]
"""0 microvolt (the 16th place's traces); the mean of the signal's other samples (the published spectrograms); or linear
interpolation across each gap, constant before the first sample and after the last."""


def fill_gaps(signals: NDArray[np.float64], policy: GapPolicy) -> NDArray[np.float64]:
    """Fill the gaps of `signals` [..., samples]; a signal without gaps is returned as is, otherwise a copy.

    The unit does not change. Each signal is filled from its own samples; one without samples becomes zero.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if np.isfinite(signals.sum()):  # fast path: any gap shows in the sum
            return signals
    valid = np.isfinite(signals)
    if valid.all():
        return signals
    filled = np.where(valid, signals, 0.0)
    if policy == "zero":
        return filled
    for place in np.ndindex(signals.shape[:-1]):
        recorded, signal = valid[place], filled[place]  # views: writing to them changes `filled`
        if recorded.all() or not recorded.any():
            continue
        if policy == "mean":
            signal[~recorded] = signal[recorded].mean()
        else:
            signal[~recorded] = np.interp(np.flatnonzero(~recorded), np.flatnonzero(recorded), signal[recorded])
    return filled
