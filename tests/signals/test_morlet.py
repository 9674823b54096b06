"""The wavelet transform at the columns against a direct convolution, and against pywt's."""

import numpy as np
import pytest
import pywt

from hms_dist.signals.morlet import instants_a_column, morlet_amplitude

RATE_HZ = 200


def oracle(signal: np.ndarray, hz: float, num_cycles: float, num_instants: int) -> np.ndarray:
    """|W| by its definition, summed in float64 over the signal and its mirror images on both sides: [instants]."""
    n = len(signal)
    extended = np.concatenate((signal[::-1], signal, signal[::-1]))
    instants = (np.arange(num_instants) + 0.5) * n / num_instants - 0.5
    distance = np.arange(-n, 2 * n) - instants[:, None]
    width = num_cycles * RATE_HZ / (2 * np.pi * hz)
    envelope = np.exp(-0.5 * (distance / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return np.abs(2 * (envelope * np.exp(-2j * np.pi * hz / RATE_HZ * distance)) @ extended)


def transform(signals: np.ndarray, rows_hz: tuple[float, ...], num_cycles: float, num_columns: int) -> np.ndarray:
    return morlet_amplitude(
        signals, rate_hz=RATE_HZ, rows_hz=rows_hz, num_cycles=num_cycles, num_columns=num_columns
    ).transpose(2, 0, 1)


@pytest.mark.parametrize("num_columns", [1, 7, 64, 250, 1000])
@pytest.mark.parametrize("num_cycles", [5.0, 6.0, 12.0])
def test_equals_direct_convolution(rng: np.random.Generator, num_columns: int, num_cycles: float) -> None:
    signals = rng.normal(0, 20, (2, 1000))
    rows_hz = tuple(np.sort(rng.uniform(3, 40, 3)).tolist())
    found = transform(signals, rows_hz, num_cycles, num_columns)
    numbers = instants_a_column(1000 / num_columns, RATE_HZ, rows_hz, num_cycles)
    for signal, rows in zip(signals, found, strict=True):
        for row, hz, number in zip(rows, rows_hz, numbers, strict=True):
            expected = oracle(signal, hz, num_cycles, num_columns * number).reshape(num_columns, number).mean(axis=1)
            np.testing.assert_allclose(row, expected, atol=2e-4 * max(expected.max(), 1))


def test_no_spike_falls_between_the_instants() -> None:
    """Wherever a spike is in a column, the column and its neighbours hold the same sum, the trace's integral."""
    rows_hz = tuple(np.geomspace(0.5, 40, 20).tolist())
    signals = np.zeros((39, 10_000))
    signals[np.arange(39), 4980 + np.arange(39)] = 1
    sums = transform(signals, rows_hz, 6.0, 256).sum(axis=2)
    np.testing.assert_allclose(sums, 2 * 256 / 10_000, rtol=0.02)


def test_equals_pywt_inside(rng: np.random.Generator) -> None:
    """Away from the ends, 2 % of each row's largest value up to 10 Hz. pywt holds every sample for its length, which
    weakens the fast rows by up to 6 % and shifts them by half a sample: 15 % there."""
    signal = np.cumsum(rng.normal(0, 5, 10_000))
    rows_hz = tuple(np.geomspace(0.5, 40, 24).tolist())
    wavelet = f"cmor{2 * (6 / (2 * np.pi)) ** 2:.6f}-1.0"  # centre 1, the envelope's variance times 2
    scales = RATE_HZ / np.array(rows_hz)
    coefficients, _ = pywt.cwt(signal - signal.mean(), scales, wavelet, method="fft", precision=14)
    # pywt's wavelets have energy 1 at every scale; as sines of amplitude 1 give 1 here, theirs give sqrt(scale) / 2.
    expected = np.abs(coefficients[:, 2500:-2500]) * 2 / np.sqrt(scales)[:, None]
    errors = np.abs(transform(signal[None], rows_hz, 6.0, 10_000)[0][:, 2500:-2500] - expected)
    within = np.where(np.array(rows_hz) < 10, 0.02, 0.15)
    assert (errors.max(axis=1) < within * expected.max(axis=1)).all()


@pytest.mark.parametrize("hz", [0.7, 3.0, 11.0, 40.0])
def test_a_sine_gives_its_amplitude(hz: float) -> None:
    sine = 37 * np.sin(2 * np.pi * hz * np.arange(10_000) / RATE_HZ + 1)
    found = transform(sine[None], (hz, 2.5 * hz), 6.0, 100)[0, :, 20:-20]
    np.testing.assert_allclose(found[0], 37, rtol=1e-3)
    assert found[1].max() < 0.1


def test_time_reversed_is_reversed(rng: np.random.Generator) -> None:
    signals = rng.normal(0, 1, (3, 5000))
    forward, backward = (transform(s, (1.0, 8.0, 30.0), 6.0, 128) for s in (signals, signals[:, ::-1]))
    np.testing.assert_allclose(backward, forward[..., ::-1], atol=1e-5)


def test_a_constant_is_silent() -> None:
    assert transform(np.ones((2, 10_000)), (0.5, 10.0), 6.0, 256).max() < 1e-6
