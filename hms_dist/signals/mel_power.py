"""Mel power of long transforms with many bins, as audio needs: a float32 FFT of each frame, then the filter bank.

`short_time` is faster for the few low bins of an EEG spectrogram. Here most of the time is in the FFT. Lengths of
2 * 4^k, such as 2,048, have one of their own (`fourier_power`), others take SciPy's. Frames are transformed in blocks
that stay in the cache, and mel rows are summed from the bins with a weight alone.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit_any_order

Padding = Literal["zeros", "reflect"]
"""Values beyond the ends of a signal: zeros (librosa's default), or its mirror image."""
FULL_SCALE = 32768
"""Steps of 16-bit audio from 0 to full scale."""
BLOCK_FRAMES = 32
"""Frames transformed at once: 0.25 MB of samples and as much of spectrum at 2,048 samples."""


def hann(window_samples: int, fft_samples: int) -> NDArray[np.float64]:
    """Periodic Hann window of `window_samples` in the middle of zeros, float64 [fft_samples]."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi / window_samples * np.arange(window_samples))
    before = (fft_samples - window_samples) // 2
    return np.pad(window, (before, fft_samples - window_samples - before))


def padded(signal: NDArray[np.float32], fft_samples: int, padding: Padding) -> NDArray[np.float32]:
    """Extend `signal` [samples], rounded to 16 bits, by half a transform on both sides, so that frame t is centred on
    sample t * hop: float32 [samples + fft_samples]."""
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
    weights: NDArray[np.float32],
    bins: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Compute `weights` [rows, bins] @ |X|^2 of the frames of a padded `signal`: float32 [rows, num_frames].

    Frame t is samples [t * hop_samples, t * hop_samples + len(window)) times `window`; X is its Fourier transform.
    `bins` [rows, 2]: first bin with a weight and the one after the last (`mel.bins_of_rows`).
    """
    from hms_dist.signals.fourier_power import fourier_power, has_length  # imported late: it imports numba

    rows = np.empty((len(weights), num_frames), np.float32)
    memory = np.empty((BLOCK_FRAMES, len(window) // 2), np.float32)
    for first in range(0, num_frames, BLOCK_FRAMES):
        num = min(BLOCK_FRAMES, num_frames - first)
        block = signal[first * hop_samples : (first + num - 1) * hop_samples + len(window)]
        if has_length(len(window)):
            power = memory[:num]
            fourier_power(block, hop_samples, window, power)
        else:
            power = _any_length(block, hop_samples, window)
        _mel_rows(power, weights, bins, rows[:, first : first + num])
    return rows


def _any_length(signal: NDArray[np.float32], hop_samples: int, window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Power of frames of any even length, float32 [frames, bins]."""
    from scipy import fft  # imported late: reading a configuration does not need it

    frames = np.lib.stride_tricks.sliding_window_view(signal, len(window))[::hop_samples]
    spectrum = fft.rfft(frames * window)
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


@jit_any_order
def _mel_rows(
    power: NDArray[np.float32], weights: NDArray[np.float32], bins: NDArray[np.int64], rows: NDArray[np.float32]
) -> None:
    """Write the mel power [rows, frames] of `power` [frames, bins]."""
    for first in range(0, len(power), 8):  # eight sums at once: rows of a few bins do not fill a vector
        num = min(8, len(power) - first)
        if num < 8:
            for frame in range(first, len(power)):
                for row in range(len(weights)):
                    total = np.float32(0)
                    for bin_ in range(bins[row, 0], bins[row, 1]):
                        total += weights[row, bin_] * power[frame, bin_]
                    rows[row, frame] = total
            return
        for row in range(len(weights)):
            a = b = c = d = e = f = g = h = np.float32(0)
            for bin_ in range(bins[row, 0], bins[row, 1]):
                weight = weights[row, bin_]
                a += weight * power[first, bin_]
                b += weight * power[first + 1, bin_]
                c += weight * power[first + 2, bin_]
                d += weight * power[first + 3, bin_]
                e += weight * power[first + 4, bin_]
                f += weight * power[first + 5, bin_]
                g += weight * power[first + 6, bin_]
                h += weight * power[first + 7, bin_]
            sums = (a, b, c, d, e, f, g, h)
            for frame in range(8):
                rows[row, first + frame] = sums[frame]
