"""Power of the Fourier transform of real frames of 2 * 4^k samples, vectorised for the processor that it runs on.

SciPy's wheels are compiled for any x86-64, with vectors of four float32; code compiled here uses those of the machine.
Even and odd samples are the real and imaginary parts of half as many complex ones. Each of the k passes of radix 4
reads four quarters and writes their outputs side by side (Pease, "An adaptation of the fast Fourier transform for
parallel processing", 1968): no pass has short inner loops. The result is in digit-reversed order.

The loops are functions of few one-dimensional arrays, because the compiler vectorises only loops for which it can check
that arrays do not overlap. Importing this module imports numba.
"""

from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import compile_function

Array = NDArray[np.float32]
_compiled = partial(compile_function, fastmath={"reassoc", "nsz", "contract"})


def has_length(fft_samples: int) -> bool:
    """Whether `fourier_power` transforms frames of this length: 2 * 4^k, 32 to 32,768."""
    return fft_samples in (2 * 4**k for k in range(2, 8))


def fourier_power(signal: Array, hop_samples: int, window: Array) -> Array:
    """Compute |X|^2 of the frames of `signal` [samples] times `window` [n]: float32 [frames, n / 2], bins from 0 to
    below half the sampling rate.

    Frame t starts at sample t * hop_samples, and all frames are within the signal.
    """
    num_frames = (len(signal) - len(window)) // hop_samples + 1
    power = np.empty((num_frames, len(window) // 2), np.float32)
    work = np.empty((7, len(window) // 2), np.float32)
    _transform(signal, hop_samples, window, *_tables(len(window)), work, power)
    return power


@lru_cache(maxsize=4)
def _tables(fft_samples: int) -> tuple[Array, Array, NDArray[np.uint64]]:
    """Factors of each pass [passes, 6, quarter]; rotation of each bin by half a sample [2, samples / 4]; places of the
    bins after the last pass [samples / 2]."""
    num = fft_samples // 2
    num_passes = round(np.log2(num)) // 2
    place, digits = np.arange(num // 4), np.arange(num)
    factors, places = np.empty((num_passes, 6, num // 4)), np.zeros(num, np.int64)
    for number in range(num_passes):
        turn = -2j * np.pi * (place // 4**number) * 4**number / num
        for output in (1, 2, 3):
            factors[number, 2 * output - 2] = np.exp(turn * output).real
            factors[number, 2 * output - 1] = np.exp(turn * output).imag
        places = places * 4 + digits % 4
        digits = digits // 4
    rotation = np.exp(-1j * np.pi * np.arange(1, num // 2 + 1) / num)
    halved = np.stack([rotation.real, rotation.imag]) / 2
    return (
        factors.astype(np.float32),
        halved.astype(np.float32),
        places.astype(np.uint64),
    )  # unsigned: no check for negative indices


@_compiled
def _transform(
    signal: Array, hop_samples: int, window: Array, factors: Array, rotation: Array, places: NDArray[np.uint64],
    work: Array, power: Array,
) -> None:  # fmt: skip
    """Write the power of the frames; `work` [7, n / 2] is scratch memory."""
    for frame in range(len(power)):
        _load(signal[frame * hop_samples : frame * hop_samples + len(window)], window, work[0], work[1])
        for number in range(len(factors)):
            now = 2 * (number % 2)
            _pass(work[now], work[now + 1], work[2 - now], work[3 - now], factors[number])
        last = 2 * (len(factors) % 2)
        _take(work[last], places, work[2 - last])
        _take(work[last + 1], places, work[3 - last])
        _real_power(work[2 - last], work[3 - last], rotation, work[4:], power[frame])


@_compiled
def _load(frame: Array, window: Array, real: Array, imag: Array) -> None:
    """Write even samples as real parts, odd ones as imaginary parts, both times the window."""
    for i in range(len(real)):
        real[i] = frame[2 * i] * window[2 * i]
        imag[i] = frame[2 * i + 1] * window[2 * i + 1]


@_compiled
def _pass(real: Array, imag: Array, out_r: Array, out_i: Array, factor: Array) -> None:
    """Transform the four values that are a quarter apart, and write them side by side, times their factors."""
    quarter = len(real) // 4
    for i in range(quarter):
        a_r, a_i, b_r, b_i = real[i], imag[i], real[i + quarter], imag[i + quarter]
        c_r, c_i = real[i + 2 * quarter], imag[i + 2 * quarter]
        d_r, d_i = real[i + 3 * quarter], imag[i + 3 * quarter]
        even_r, even_i, left_r, left_i = a_r + c_r, a_i + c_i, a_r - c_r, a_i - c_i
        odd_r, odd_i, turned_r, turned_i = b_r + d_r, b_i + d_i, b_i - d_i, d_r - b_r
        out_r[4 * i] = even_r + odd_r
        out_i[4 * i] = even_i + odd_i
        x, y = left_r + turned_r, left_i + turned_i
        out_r[4 * i + 1] = x * factor[0, i] - y * factor[1, i]
        out_i[4 * i + 1] = x * factor[1, i] + y * factor[0, i]
        x, y = even_r - odd_r, even_i - odd_i
        out_r[4 * i + 2] = x * factor[2, i] - y * factor[3, i]
        out_i[4 * i + 2] = x * factor[3, i] + y * factor[2, i]
        x, y = left_r - turned_r, left_i - turned_i
        out_r[4 * i + 3] = x * factor[4, i] - y * factor[5, i]
        out_i[4 * i + 3] = x * factor[5, i] + y * factor[4, i]


@_compiled
def _take(values: Array, places: NDArray[np.uint64], out: Array) -> None:
    for i in range(len(places)):
        out[i] = values[places[i]]


@_compiled
def _real_power(real: Array, imag: Array, rotation: Array, spare: Array, power: Array) -> None:
    """Write the power of bins k and n - k of the real samples, from those bins of the complex ones; `rotation` is
    halved, because sums of two are used."""
    num = len(real)
    half = num // 2
    for k in range(half):
        spare[0, k] = real[num - 1 - k]
        spare[1, k] = imag[num - 1 - k]
    power[0] = (real[0] + imag[0]) ** 2
    for k in range(half):
        even_r, even_i = (real[k + 1] + spare[0, k]) / 2, (imag[k + 1] - spare[1, k]) / 2
        odd_r, odd_i = imag[k + 1] + spare[1, k], spare[0, k] - real[k + 1]
        x = rotation[0, k] * odd_r - rotation[1, k] * odd_i
        y = rotation[0, k] * odd_i + rotation[1, k] * odd_r
        power[k + 1] = (even_r + x) * (even_r + x) + (even_i + y) * (even_i + y)
        spare[2, k] = (even_r - x) * (even_r - x) + (even_i - y) * (even_i - y)
    for k in range(half):
        power[num - 1 - k] = spare[2, k]
