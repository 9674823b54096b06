"""Per-channel energy normalisation (PCEN): loudness relative to the recent past.

Wang and others, "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017. The weight of a new
frame is librosa's (0.11), so that equal parameters give equal pictures.
"""

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-37
"""Least energy that anything is divided by; float32 ends at 1e-38."""


def smoothing_weight(time_constant_frames: float) -> float:
    """Weight b of a new frame in the exponential mean M[t] = (1 - b) M[t-1] + b S[t].

    b = (sqrt(1 + 4 T^2) - 1) / (2 T^2), with T the time constant: 1 / T where that is long.
    """
    squared = 2 * time_constant_frames**2
    return float((np.sqrt(1 + 2 * squared) - 1) / squared)


def normalise_energy(
    energy: NDArray[np.float32],
    *,
    scale: float,
    time_constant_frames: float,
    gain: float,
    bias: float,
    power: float,
    epsilon: float,
) -> NDArray[np.float32]:
    """(S / (epsilon + M)^gain + bias)^power - bias^power of S = `energy` * `scale`: float32 [rows, frames].

    M is S smoothed forward in time, row by row, as if the first frame had always been. `energy` [rows, frames]
    is 0 or above and at most of order 1, `scale` whatever brings it to its unit: the product need not fit float32.
    """
    from scipy import signal  # loaded when first needed: reading a configuration need not wait for it

    weight = np.float32(smoothing_weight(time_constant_frames))
    kept = np.float32(1) - weight
    past, _ = signal.lfilter([weight], [np.float32(1), -kept], energy, zi=kept * energy[:, :1])
    past += np.float32(max(epsilon / scale, SMALLEST))
    ratio = energy * np.exp(np.float32(-gain) * np.log(past)) * np.float32(scale ** (1 - gain))
    return np.asarray((ratio + np.float32(bias)) ** np.float32(power) - np.float32(bias**power))
