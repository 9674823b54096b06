"""Short-time power by both ways against numpy's own Fourier transform."""

import numpy as np
import pytest

from hms_dist.signals.short_time import folded_power, short_time_power
from hms_dist.signals.sliding_transform import sliding_power


def oracle(signal: np.ndarray, window: int, fft: int, hop: int, num_bins: int) -> np.ndarray:
    """Frames starting with their window, one transform each."""
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    starts = range(0, len(signal) - window + 1, hop)
    spectra = [np.fft.rfft(signal[start : start + window] * taper, fft) for start in starts]
    return np.abs(np.array(spectra).T[:num_bins]) ** 2


@pytest.mark.parametrize(
    ("window", "fft", "hop"), [(128, 1024, 39), (2, 2, 1), (64, 64, 7), (200, 300, 200), (10, 1000, 3)]
)
def test_folded(rng: np.random.Generator, window: int, fft: int, hop: int) -> None:
    signal = rng.uniform(-1, 1, 1500)
    num_bins = min(40, fft // 2)
    power, expected = folded_power(signal, window, fft, hop, num_bins), oracle(signal, window, fft, hop, num_bins)
    assert power.shape == expected.shape
    np.testing.assert_allclose(power, expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize(
    ("window", "hop", "num_samples"),
    [(1000, 40, 3013), (64, 16, 500), (8, 8, 80), (12, 3, 12), (50, 25, 210), (8, 1, 40)],
)
def test_sliding(rng: np.random.Generator, window: int, hop: int, num_samples: int) -> None:
    signal = rng.uniform(-1, 1, num_samples)
    num_bins = window // 2 - 1
    power, expected = sliding_power(signal, window, hop, num_bins), oracle(signal, window, window, hop, num_bins)
    assert power.shape == expected.shape
    np.testing.assert_allclose(power, expected, atol=1e-12 * expected.max())


def test_sliding_sums_do_not_drift(rng: np.random.Generator) -> None:
    """After a million loud samples the last quiet frame is still right, 10 orders of magnitude below."""
    signal = np.concatenate([rng.uniform(-1, 1, 1_000_000) + 1, rng.uniform(-1, 1, 2000) * 1e-5])
    quiet = sliding_power(signal, 1000, 40, 100)[:, -1]
    np.testing.assert_allclose(quiet, sliding_power(signal[-1000:], 1000, 40, 100)[:, 0], rtol=1e-3)


@pytest.mark.parametrize(("window", "fft", "hop"), [(128, 1024, 39), (1000, 1000, 40)])
@pytest.mark.parametrize("centred", [False, True])
def test_positions_of_frames(window: int, fft: int, hop: int, centred: bool) -> None:
    """An impulse lights, with the window's square at its distance, exactly the frames whose window holds it."""
    signal = np.zeros(5000)
    signal[2345] = 1
    power = short_time_power(
        signal, window_samples=window, fft_samples=fft, hop_samples=hop, num_bins=5, centred=centred
    )
    assert power.shape == (5, (5000 + (fft if centred else 0) - fft) // hop + 1)
    centres = np.arange(power.shape[1]) * hop + (0 if centred else fft // 2)
    distance = np.abs(centres - 2345)
    weight = np.where(distance < window / 2, 0.5 + 0.5 * np.cos(2 * np.pi * distance / window), 0)
    np.testing.assert_allclose(power, np.tile(weight**2, (5, 1)), atol=1e-6)
