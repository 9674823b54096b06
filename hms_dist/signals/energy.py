"""Per-channel energy normalisation (PCEN): loudness relative to the recent past.

Wang and others, "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017. The weight of a new
frame is that of `librosa.pcen` (0.11). librosa's mean before the first frame is an energy of 1 (start "one"), against
which the first frames of an EEG in microvolts are an onset.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SMALLEST = 1e-37
"""Smallest energy used as a divisor; float32 ends at 1e-38."""

Start = Literal["first_frame", "mean", "one"]
"""Initial value of the exponential mean: the first frame's energy, the mean over the first time constant, or 1, as in
librosa. A single frame of noise is often far below its row's mean, and the frames after it are then as bright as an
onset."""


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
    start: Start,
    gain: float,
    bias: float,
    power: float,
    epsilon: float,
) -> NDArray[np.float32]:
    """(S / (epsilon + M)^gain + bias)^power - bias^power of S = `energy` * `scale`: float32 [rows, frames].

    M is S smoothed forward in time, row by row, from `start` on. `energy` [rows, frames] is 0 or above and at most
    of order 1, `scale` whatever brings it to its unit: the product need not fit float32.
    """
    from scipy import signal  # imported late: reading a configuration does not need it

    weight = np.float32(smoothing_weight(time_constant_frames))
    kept = np.float32(1) - weight
    num_start = max(round(time_constant_frames), 1) if start == "mean" else 1
    before = energy[:, :num_start].mean(axis=1, keepdims=True)
    if start == "one":
        before = np.full_like(before, 1 / scale)
    past, _ = signal.lfilter([weight], [np.float32(1), -kept], energy, zi=kept * before)
    past += np.float32(max(epsilon / scale, SMALLEST))
    ratio = energy * np.exp(np.float32(-gain) * np.log(past)) * np.float32(scale ** (1 - gain))
    return np.asarray((ratio + np.float32(bias)) ** np.float32(power) - np.float32(bias**power))
