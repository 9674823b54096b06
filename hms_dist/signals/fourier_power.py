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


def fourier_power(signal: Array, hop_samples: int, window: Array, power: Array) -> None:
    """Write |X|^2 of frames of `signal` [samples] times `window` [n] to `power` [frames, n / 2], in the unit of the
    signal squared: bins from 0 to below half the sampling rate.

    Frame t starts at sample t * hop_samples; all frames are within the signal.
    """
    work = np.empty((4, len(window) // 2), np.float32)
    _transform(signal, hop_samples, window, *_tables(len(window)), work, power)


@lru_cache(maxsize=4)
def _tables(fft_samples: int) -> tuple[Array, Array, NDArray[np.uint32]]:
    """Factors of each pass but the last [passes, 6, quarter]; rotation of each bin by half a sample [2, samples / 4];
    places of bins 1, 2, ... and of the last ones backwards after the last pass [2, samples / 4]."""
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
    both = np.stack([places[1 : num // 2 + 1], places[: num // 2 - 1 : -1]])
    # Unsigned: the compiler adds no check for negative indices. The factors of the last pass are 1.
    return factors[:-1].astype(np.float32), halved.astype(np.float32), both.astype(np.uint32)


@_compiled
def _transform(
    signal: Array, hop_samples: int, window: Array, factors: Array, rotation: Array, places: NDArray[np.uint32],
    work: Array, power: Array,
) -> None:  # fmt: skip
    """Write the power of the frames; `work` [4, n / 2] is scratch memory."""
    for frame in range(len(power)):
        _load(signal[frame * hop_samples : frame * hop_samples + len(window)], window, work[0], work[1])
        for number in range(len(factors)):
            now = 2 * (number % 2)
            _pass(work[now], work[now + 1], work[2 - now], work[3 - now], factors[number])
        now = 2 * (len(factors) % 2)
        _last_pass(work[now], work[now + 1], work[2 - now], work[3 - now])
        _real_power(work[2 - now], work[3 - now], places, rotation, work[now], power[frame])


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
def _last_pass(real: Array, imag: Array, out_r: Array, out_i: Array) -> None:
    """Transform as `_pass`, with factors of 1."""
    quarter = len(real) // 4
    for i in range(quarter):
        a_r, a_i, b_r, b_i = real[i], imag[i], real[i + quarter], imag[i + quarter]
        c_r, c_i = real[i + 2 * quarter], imag[i + 2 * quarter]
        d_r, d_i = real[i + 3 * quarter], imag[i + 3 * quarter]
        even_r, even_i, left_r, left_i = a_r + c_r, a_i + c_i, a_r - c_r, a_i - c_i
        odd_r, odd_i, turned_r, turned_i = b_r + d_r, b_i + d_i, b_i - d_i, d_r - b_r
        out_r[4 * i] = even_r + odd_r
        out_i[4 * i] = even_i + odd_i
        out_r[4 * i + 1] = left_r + turned_r
        out_i[4 * i + 1] = left_i + turned_i
        out_r[4 * i + 2] = even_r - odd_r
        out_i[4 * i + 2] = even_i - odd_i
        out_r[4 * i + 3] = left_r - turned_r
        out_i[4 * i + 3] = left_i - turned_i


@_compiled
def _real_power(
    real: Array, imag: Array, places: NDArray[np.uint32], rotation: Array, spare: Array, power: Array
) -> None:
    """Write the power of bins k and n - k of the real samples, from those bins of the complex ones, which are at
    `places`: k = 1, 2, ... and n - 1, n - 2, ...; `rotation` is halved, because sums of two are used."""
    half = len(real) // 2
    power[0] = (real[0] + imag[0]) ** 2
    for k in range(half):
        one, other = places[0, k], places[1, k]
        even_r, even_i = (real[one] + real[other]) / 2, (imag[one] - imag[other]) / 2
        odd_r, odd_i = imag[one] + imag[other], real[other] - real[one]
        x = rotation[0, k] * odd_r - rotation[1, k] * odd_i
        y = rotation[0, k] * odd_i + rotation[1, k] * odd_r
        power[k + 1] = (even_r + x) * (even_r + x) + (even_i + y) * (even_i + y)
        spare[k] = (even_r - x) * (even_r - x) + (even_i - y) * (even_i - y)
    for k in range(half):
        power[len(real) - 1 - k] = spare[k]
