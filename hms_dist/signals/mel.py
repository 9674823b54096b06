"""Mel filter bank of the published EEG spectrograms: Slaney's scale, triangles of equal area.

Slaney, Auditory Toolbox, technical report 1998-010: linear below 1 kHz (3 mel per 200 Hz), logarithmic above (27 mel
per factor 6.4). Each triangle is divided by half its width in hertz, so that white noise has the same power in every
row.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit_any_order

_MEL_PER_HZ = 3 / 200
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ * _MEL_PER_HZ
_MEL_PER_LN = 27 / np.log(6.4)


def hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert frequencies in hertz (0 or above) to mel, same shape."""
    above = _BREAK_MEL + _MEL_PER_LN * np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ)
    return np.where(hz < _BREAK_HZ, hz * _MEL_PER_HZ, above)


def mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert mel to hertz, same shape: the inverse of `hz_to_mel`."""
    above = _BREAK_HZ * np.exp((np.maximum(mel, _BREAK_MEL) - _BREAK_MEL) / _MEL_PER_LN)
    return np.where(mel < _BREAK_MEL, mel / _MEL_PER_HZ, above)


def edges_hz(num_mels: int, min_hz: float, max_hz: float) -> NDArray[np.float64]:
    """Return the corners of the triangles, hertz [num_mels + 2], evenly spaced in mel; triangle i spans i to i + 2."""
    low, high = hz_to_mel(np.array([min_hz, max_hz], np.float64))
    return mel_to_hz(np.linspace(low, high, num_mels + 2))


def filter_bank(
    *, rate_hz: float, fft_samples: int, num_mels: int, min_hz: float, max_hz: float
) -> NDArray[np.float64]:
    """Return the weights [num_mels, bins] from the power of each Fourier bin to that of each mel row.

    Bins run from 0 Hz in steps of `rate_hz / fft_samples` to the last one below `max_hz`; higher ones have no weight
    and are omitted. A row narrower than a bin may be all zero.
    """
    step_hz = rate_hz / fft_samples
    bins_hz = np.arange(np.ceil(max_hz / step_hz)) * step_hz
    corners_hz = edges_hz(num_mels, min_hz, max_hz)[:, None]
    low, centre, high = corners_hz[:-2], corners_hz[1:-1], corners_hz[2:]
    rising = (bins_hz - low) / (centre - low)
    falling = (high - bins_hz) / (high - centre)
    return np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)


def bins_of_rows(weights: NDArray[np.floating]) -> NDArray[np.int64]:
    """Return the range of nonzero weights (first bin, bin after the last) of each row of `weights` [rows, bins]: int64
    [rows, 2]."""
    weighs = weights != 0
    return np.stack([weighs.argmax(axis=1), weights.shape[1] - weighs[:, ::-1].argmax(axis=1)], axis=1)


@jit_any_order
def mel_rows(weights: NDArray[np.float32], bins: NDArray[np.int64], power: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute `weights` [rows, bins] @ `power` [bins, frames], both C-ordered: float32 [rows, frames], same unit.

    `bins`: int64 [rows, 2], the range of nonzero weights of each row, from `bins_of_rows`; other bins are skipped. For
    finite power the result equals the product to the last bit: terms are added in the order of the bins, each
    rounded once.
    """
    rows = np.zeros((len(weights), power.shape[1]), np.float32)
    for row in range(len(weights)):
        for bin_ in range(bins[row, 0], bins[row, 1]):
            weight = weights[row, bin_]
            for frame in range(power.shape[1]):
                rows[row, frame] += weight * power[bin_, frame]
    return rows
