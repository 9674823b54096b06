"""Continuous wavelet transform with complex Morlet wavelets, computed only at the columns of a picture.

Grossmann and Morlet, "Decomposition of Hardy functions into square integrable wavelets of constant shape", 1984. At one
scale the transform is the signal's spectrum times a Gaussian, transformed back. A picture needs only a few hundred
instants of it. The product is therefore folded (aliased) to as many coefficients as there are instants before the
inverse transform, which gives the same values there. With the signal extended by reflection, the spectrum is a cosine
transform, and real and imaginary part are a cosine and a sine transform.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit

NEGLIGIBLE = 1e-6
"""The Gaussian of a wavelet is cut below this fraction of its peak."""
REACH = float(np.sqrt(-2 * np.log(NEGLIGIBLE)))
"""The Gaussian ends this many standard deviations (5.3) from its peak."""

Floats = NDArray[np.float32]


class Bank(NamedTuple):
    """Spectra of the wavelets, each over its own band of cosine bins (bin k is k * rate / 2 / samples hertz)."""

    first_bin: NDArray[np.int64]
    """First bin of each band [scales]."""
    starts: NDArray[np.int64]
    """Start of each band in `gains`, and the end of the last one [scales + 1]."""
    gains: Floats
    """The concatenated bands [sum of their lengths]."""


def morlet_amplitude(
    signals: NDArray[np.float64], *, rate_hz: float, rows_hz: tuple[float, ...], num_cycles: float, num_columns: int
) -> Floats:
    """Mean of |W(t, f)| over each column's time, float32 [rows, columns, signals], in the unit of the signals.

    W(t, f) = sum_n x[n] 2 g(n - t) exp(-2 pi i f (n - t) / rate), with g the Gaussian of standard deviation num_cycles
    * rate / (2 pi f) samples and sum 1: a sine of amplitude 1 at f gives 1. `signals` [signals, samples] must be finite
    and within the range of float32; they are extended by reflection. Columns are equal parts of the samples; the mean
    is over `instants_a_column` instants at the centres of equal parts of a column.
    """
    from scipy import fft  # imported late: reading a configuration does not need it

    per_column = instants_a_column(signals.shape[1] / num_columns, rate_hz, rows_hz, num_cycles)
    parts = []
    spectrum = np.ascontiguousarray(fft.dct(signals, type=2).T, np.float32)
    for number in np.unique(per_column):
        rows = tuple(hz for hz, needed in zip(rows_hz, per_column, strict=True) if needed == number)
        bank = _bank(signals.shape[1], rate_hz, rows, num_cycles)
        cosines, sines = _fold(spectrum, bank.first_bin, bank.starts, bank.gains, num_columns * int(number))
        real = fft.dct(cosines, type=3, axis=1, overwrite_x=True)
        imaginary = fft.dst(sines, type=3, axis=1, overwrite_x=True)
        amplitude = np.sqrt(real * real + imaginary * imaginary)
        parts.append(amplitude.reshape(len(rows), num_columns, number, -1).mean(axis=2))
    return np.concatenate(parts)


def instants_a_column(
    column_samples: float, rate_hz: float, rows_hz: tuple[float, ...], num_cycles: float
) -> NDArray[np.int64]:
    """Return the number of instants [rows] that a column averages, for each of `rows_hz` (ascending).

    They are at most two standard deviations of the row's Gaussian apart, so that no event is missed: the mean of a
    spike's trace is then correct to 1.5 %.
    """
    widths = num_cycles * rate_hz / (2 * np.pi * np.array(rows_hz))
    return np.ceil(column_samples / (2 * widths)).astype(np.int64)


@lru_cache(maxsize=32)
def _bank(num_samples: int, rate_hz: float, rows_hz: tuple[float, ...], num_cycles: float) -> Bank:
    bins_per_hz = 2 * num_samples / rate_hz
    centres = np.array(rows_hz) * bins_per_hz
    first = np.maximum(1, np.ceil(centres * (1 - REACH / num_cycles))).astype(np.int64)
    last = np.minimum(num_samples - 1, np.floor(centres * (1 + REACH / num_cycles))).astype(np.int64)
    distances = [np.arange(low, high + 1) / centre - 1 for low, high, centre in zip(first, last, centres, strict=True)]
    # 2 for the missing negative frequencies; 1 / (4 samples) because both transforms count every term twice.
    gains = np.concatenate([np.exp(-0.5 * (num_cycles * distance) ** 2) for distance in distances]) / (2 * num_samples)
    return Bank(first, np.concatenate(([0], np.cumsum(last - first + 1))), gains.astype(np.float32))


@jit
def _fold(
    spectrum: Floats, first_bin: NDArray[np.int64], starts: NDArray[np.int64], gains: Floats, num_instants: int
) -> tuple[Floats, Floats]:
    """Coefficients of the cosine and of the sine transform, each [scales, instants, signals].

    Instant i is (i + 1/2) * samples / instants - 1/2. There the waves of bin k are cos and sin of pi k (i + 1/2) /
    instants: for k and 2 instants - k they differ only in the sign of the cosine, and for k and k + 2 instants in both
    signs.
    """
    num_scales, num_lanes = len(first_bin), spectrum.shape[1]
    cosines = np.zeros((num_scales, num_instants, num_lanes), np.float32)
    sines = np.zeros((num_scales, num_instants, num_lanes), np.float32)
    for scale in range(num_scales):
        for place in range(starts[scale], starts[scale + 1]):
            k = first_bin[scale] + place - starts[scale]
            wave, turns = k % (2 * num_instants), k // (2 * num_instants)
            sine_gain = -gains[place] if turns % 2 else gains[place]
            cosine_gain = sine_gain
            if wave > num_instants:
                wave, cosine_gain = 2 * num_instants - wave, -sine_gain
            if wave < num_instants:  # the cosine of the last wave is 0 at every instant
                for lane in range(num_lanes):
                    cosines[scale, wave, lane] += cosine_gain * spectrum[k, lane]
            if wave > 0:
                for lane in range(num_lanes):
                    sines[scale, wave - 1, lane] += sine_gain * spectrum[k, lane]
        # Type 3 transforms count every wave twice except the cosine's first and the sine's last.
        for lane in range(num_lanes):
            cosines[scale, 0, lane] *= 2
            sines[scale, num_instants - 1, lane] *= 2
    return cosines, sines
