"""Recording quality of each channel of a label row: the fractions that are gap, flat or clipped.

Stored in the `json` member of a sample, so that bad rows can be found, excluded or masked without the recordings.
The limits are those of this project; the 3rd place clips at the same amplitude.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit
from hms_dist.core.signal_format import CHANNELS, RATE_HZ

FLAT_UV = 1.0
"""A second whose samples (at least two) are within this many microvolts is flat: no living scalp is so quiet."""
CLIP_UV = 1024.0
"""A sample this many microvolts or more from the mean of its channel is clipped: beyond physiological values, where
amplifiers saturate and the 3rd place clips. (A tall heartbeat in the EKG may exceed it.)"""

_FAULTS = ("gap", "flat", "clipped")
Quality = dict[str, dict[str, float]]
"""Fault (gap, flat, clipped) -> channel -> fraction of the window, 0 to 1; only fractions above 0."""


def channel_quality(eeg: NDArray[np.floating]) -> Quality:
    """Compute the quality of `eeg` [samples, 20], microvolt, any float dtype, columns as CHANNELS, over whole seconds.

    Non-finite samples are gaps, and neither flat nor clipped.
    """
    shares = _counts(np.ascontiguousarray(eeg.T, np.float64), RATE_HZ) / len(eeg)
    return {
        fault: {name: float(share) for name, share in zip(CHANNELS, row, strict=True) if share > 0}
        for fault, row in zip(_FAULTS, shares, strict=True)
    }


def wrong_scale_uv(eeg: NDArray[np.floating], quality: Quality) -> float | None:
    """Return the amplitude of `eeg` [samples, 20], any float dtype, if its unit seems wrong, else None.

    The unit seems wrong if nearly all channels are flat or clipped according to `quality`: in volts or millivolts all
    are flat, in nanovolts all are clipped. Amplitude: the median over channels of the standard deviation, microvolt.
    """
    gap, flat, clipped = (np.array([quality[fault].get(name, 0.0) for name in CHANNELS]) for fault in _FAULTS)
    recorded = gap < 1
    bad = (flat + clipped) > 0.5 * (1 - gap)
    if not recorded.any() or (bad & recorded).sum() < 0.9 * recorded.sum():
        return None
    return float(np.median(np.nanstd(eeg[:, recorded].astype(np.float64), axis=0)))


@jit
def _counts(channels: NDArray[np.float64], second: int) -> NDArray[np.int64]:
    """Number of samples of `channels` [channels, samples] that are gap, flat, clipped: int64 [3, channels]."""
    counts = np.zeros((3, len(channels)), np.int64)
    for channel in range(len(channels)):
        values = channels[channel]
        total, num_recorded, least, most = 0.0, 0, np.inf, -np.inf
        for start in range(0, len(values), second):
            lowest, highest, num_here = np.inf, -np.inf, 0
            for value in values[start : start + second]:
                if np.isfinite(value):
                    lowest = value if value < lowest else lowest
                    highest = value if value > highest else highest
                    total += value
                    num_here += 1
            num_recorded += num_here
            least, most = min(least, lowest), max(most, highest)
            if num_here >= 2 and highest - lowest <= FLAT_UV:
                counts[1, channel] += num_here
        counts[0, channel] = len(values) - num_recorded
        mean = total / max(num_recorded, 1)
        if mean - least >= CLIP_UV or most - mean >= CLIP_UV:  # hardly any channel has a recorded sample
            for value in values:
                if np.isfinite(value) and abs(value - mean) >= CLIP_UV:
                    counts[2, channel] += 1
    return counts
