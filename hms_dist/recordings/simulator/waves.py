"""Generators of signals: noise of a given spectrum, and trains of equal waves at given times."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len

Floats = NDArray[np.float64]


def coloured_noise(
    rng: np.random.Generator,
    density: Callable[[Floats], Floats],
    *,
    num_channels: int,
    num_samples: int,
    rate_hz: float,
) -> Floats:
    """Generate independent Gaussian noise [num_channels, num_samples] of a one-sided power density (unit^2 / Hz)."""
    length = next_fast_len(num_samples, real=True)
    frequencies = np.arange(length // 2 + 1) * (rate_hz / length)
    amplitude = np.sqrt(density(frequencies) * rate_hz * length / 4)
    amplitude[0] = 0
    white = rng.standard_normal((num_channels, len(frequencies), 2)).view(np.complex128)[..., 0]
    return irfft(white * amplitude, length, axis=1)[:, :num_samples]


def one_over_f(power_1hz: float, exponent: float, knee_hz: float = 0.4) -> Callable[[Floats], Floats]:
    """Power density decaying as 1 / f^exponent above the knee; `power_1hz` is roughly its value at 1 Hz."""
    return lambda hz: power_1hz / (hz**2 + knee_hz**2) ** (exponent / 2)


def narrow_band(rms: float, centre_hz: float, width_hz: float) -> Callable[[Floats], Floats]:
    """Gaussian power density around `centre_hz` (standard deviation `width_hz`) whose total power is rms^2, in
    the unit of `rms` squared."""
    peak = rms**2 / (np.sqrt(2 * np.pi) * width_hz)
    return lambda hz: peak * np.exp(-0.5 * ((hz - centre_hz) / width_hz) ** 2)


def bumps(time_s: Floats, *parts: tuple[float, float, float]) -> Floats:
    """Sum of Gaussian bumps (height, centre in s, standard deviation in s) at `time_s`; same shape."""
    total = np.zeros_like(time_s)
    for height, centre_s, width_s in parts:
        total += height * np.exp(-0.5 * ((time_s - centre_s) / width_s) ** 2)
    return total


def train(time_s: Floats, at_s: Floats, scales: Floats, wave: Callable[[Floats], Floats], lead_s: float) -> Floats:
    """Sum a wave at each of the ascending times `at_s`, multiplied by its scale: values at `time_s` [n].

    `wave` is a function of the time since its moment; each wave is used from `lead_s` before its moment until the next
    one begins.
    """
    if not len(at_s):
        return np.zeros_like(time_s)
    which = np.maximum(np.searchsorted(at_s, time_s + lead_s, side="right") - 1, 0)
    return scales[which] * wave(time_s - at_s[which])


def ramp(time_s: Floats, start_s: float, stop_s: float, rise_s: float, fall_s: float) -> Floats:
    """Envelope at `time_s`, same shape, that rises smoothly from 0 at `start_s` to 1 within `rise_s`, and falls to 0
    within the last `fall_s`."""
    shares = np.minimum((time_s - start_s) / rise_s, (stop_s - time_s) / fall_s)
    return np.sin(np.clip(shares, 0, 1) * np.pi / 2) ** 2
