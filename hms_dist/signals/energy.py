"""Per-channel energy normalisation (PCEN): loudness relative to the recent past.

Wang and others, "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017. The weight of a new frame
is that of `librosa.pcen` (0.11). librosa's mean before the first frame is an energy of 1 (start "one"), so the first
frames of an EEG in microvolts look like an onset.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit

LANES = 8
"""Rows that are smoothed together, because each step of a recursion waits for the previous one."""
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
    of order 1, `scale` converts it to its unit; the product may exceed the range of float32.
    """
    weight = np.float32(smoothing_weight(time_constant_frames))
    kept = np.float32(1) - weight
    num_start = max(round(time_constant_frames), 1) if start == "mean" else 1
    before = energy[:, :num_start].mean(axis=1, keepdims=True)
    if start == "one":
        before = np.full_like(before, 1 / scale)
    past = _smoothed(np.ascontiguousarray(energy), weight, kept, (kept * before)[:, 0].astype(np.float32))
    past += np.float32(max(epsilon / scale, SMALLEST))
    ratio = np.log(past, out=past)
    ratio *= np.float32(-gain)
    np.exp(ratio, out=ratio)
    ratio *= energy
    ratio *= np.float32(scale ** (1 - gain))
    ratio += np.float32(bias)
    ratio **= np.float32(power)
    ratio -= np.float32(bias**power)
    return ratio


@jit
def _smoothed(
    energy: NDArray[np.float32], weight: np.float32, kept: np.float32, state: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Smooth `energy` [rows, frames] in time, rounded as `scipy.signal.lfilter` does: M = state + weight * S, then
    state [rows] = kept * M."""
    past = np.empty_like(energy)
    for first in range(0, len(energy), LANES):
        last = min(first + LANES, len(energy))
        for frame in range(energy.shape[1]):
            for row in range(first, last):
                mean = state[row] + weight * energy[row, frame]
                past[row, frame] = mean
                state[row] = kept * mean
    return past
