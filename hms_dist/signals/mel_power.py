"""Mel power of long transforms with many bins, as audio needs: a float32 FFT of each frame, then the filter bank.

`short_time` is faster for the few low bins of an EEG spectrogram. Here most of the time is in the FFT. Lengths of
2 * 4^k, such as 2,048, have one of their own (`fourier_power`), others take SciPy's. Frames are transformed in blocks
that stay in the cache, and mel rows are summed from the bins with a weight alone.
"""

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit_any_order

Padding = Literal["zeros", "reflect"]
"""Values beyond the ends of a signal: zeros (librosa's default), or its mirror image."""
FULL_SCALE = 32768
"""Steps of 16-bit audio from 0 to full scale."""
BLOCK_FRAMES = 32
"""Frames transformed at once: 0.25 MB of samples and as much of spectrum at 2,048 samples."""


class Slopes(NamedTuple):
    """A bank of triangles, each bin in at most two: the rising side of one and the falling side of the one below."""

    up: NDArray[np.float32]
    """Weight of each bin in the row that rises there [bins]."""
    down: NDArray[np.float32]
    """Weight of each bin in the row that falls there, one below [bins]."""
    starts: NDArray[np.int64]
    """First bin of each side: row r rises from starts[r] and falls from starts[r + 1] to before starts[r + 2] [rows +
    2]."""


def slopes_of(weights: NDArray[np.float32], corners: NDArray[np.float64]) -> Slopes:
    """Split `weights` [rows, bins] of triangles with `corners` [rows + 2], in bins, into their sides."""
    num_rows, num_bins = weights.shape
    starts = np.minimum(np.ceil(corners), num_bins).astype(np.int64)
    bins = np.arange(num_bins)
    side = np.searchsorted(starts, bins, side="right") - 1
    up = np.where((side >= 0) & (side < num_rows), weights[side.clip(0, num_rows - 1), bins], 0)
    down = np.where(side >= 1, weights[(side - 1).clip(0, num_rows - 1), bins], 0)
    return Slopes(up.astype(np.float32), down.astype(np.float32), starts)


def hann(window_samples: int, fft_samples: int) -> NDArray[np.float64]:
    """Periodic Hann window of `window_samples` in the middle of zeros, float64 [fft_samples]."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / window_samples * np.arange(window_samples))
    before = (fft_samples - window_samples) // 2
    return np.pad(window, (before, fft_samples - window_samples - before))


def padded(signal: NDArray[np.float32], fft_samples: int, padding: Padding) -> NDArray[np.float32]:
    """Extend `signal` [samples], full scale 1, rounded to 16 bits, by half a transform on both sides, so that frame t
    is centred on sample t * hop: float32 [samples + fft_samples]."""
    half = fft_samples // 2
    if padding == "reflect":
        signal = np.pad(signal, half, mode="reflect")
        half = 0
    found = np.zeros(len(signal) + 2 * half, np.float32)
    inside = found[half : half + len(signal)]
    np.multiply(signal, np.float32(FULL_SCALE), out=inside)
    np.rint(inside, out=inside)
    np.multiply(inside, np.float32(1 / FULL_SCALE), out=inside)
    return found


def mel_power(
    signal: NDArray[np.float32],
    *,
    window: NDArray[np.float32],
    hop_samples: int,
    num_frames: int,
    slopes: Slopes,
) -> NDArray[np.float32]:
    """Compute the mel power of the frames of a padded `signal`, full scale 1: float32 [rows, num_frames].

    Frame t is samples [t * hop_samples, t * hop_samples + len(window)) times `window`.
    """
    from hms_dist.signals.fourier_power import fourier_power, has_length  # imported late: it imports numba

    rows = np.empty((len(slopes.starts) - 2, num_frames), np.float32)
    power = np.zeros((BLOCK_FRAMES, len(window) // 2), np.float32)  # frames after the last of a block are not used
    for first in range(0, num_frames, BLOCK_FRAMES):
        num = min(BLOCK_FRAMES, num_frames - first)
        block = signal[first * hop_samples : (first + num - 1) * hop_samples + len(window)]
        if has_length(len(window)):
            fourier_power(block, hop_samples, window, power[:num])
        else:
            power[:num] = _any_length(block, hop_samples, window)
        _mel_rows(power, *slopes, rows[:, first : first + num])
    return rows


def _any_length(signal: NDArray[np.float32], hop_samples: int, window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Power of frames of any even length n, as `fourier_power`, float32 [frames, n / 2]."""
    from scipy import fft  # imported late: reading a configuration does not need it

    frames = np.lib.stride_tricks.sliding_window_view(signal, len(window))[::hop_samples]
    spectrum = fft.rfft(frames * window)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)[:, : len(window) // 2]


@jit_any_order
def _mel_rows(
    power: NDArray[np.float32],
    up: NDArray[np.float32],
    down: NDArray[np.float32],
    starts: NDArray[np.int64],
    rows: NDArray[np.float32],
) -> None:
    """Write the mel power [rows, frames] of `power` [frames, bins], a multiple of 8 frames, by the sides of `Slopes`.

    Eight frames at once, because sides of a few bins do not fill a vector; a bin is read once for both its rows.
    """
    for first in range(0, len(power), 8):
        part = power[first : first + 8]
        a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
        for side in range(len(rows) + 1):
            d0, d1, d2, d3, d4, d5, d6, d7 = a0, a1, a2, a3, a4, a5, a6, a7
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = np.float32(0)
            for bin_ in range(starts[side], starts[side + 1]):
                rising, falling = up[bin_], down[bin_]
                value = part[0, bin_]
                a0 += rising * value
                d0 += falling * value
                value = part[1, bin_]
                a1 += rising * value
                d1 += falling * value
                value = part[2, bin_]
                a2 += rising * value
                d2 += falling * value
                value = part[3, bin_]
                a3 += rising * value
                d3 += falling * value
                value = part[4, bin_]
                a4 += rising * value
                d4 += falling * value
                value = part[5, bin_]
                a5 += rising * value
                d5 += falling * value
                value = part[6, bin_]
                a6 += rising * value
                d6 += falling * value
                value = part[7, bin_]
                a7 += rising * value
                d7 += falling * value
            sums = (d0, d1, d2, d3, d4, d5, d6, d7)
            if side:
                for frame in range(min(8, rows.shape[1] - first)):
                    rows[side - 1, first + frame] = sums[frame]
