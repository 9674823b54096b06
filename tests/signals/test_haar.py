"""Haar statistics against pywt's pyramid, window by window."""

import numpy as np
import pytest
import pywt

from hms_dist.signals.haar import BANDS, haar_statistics


def oracle(signals: np.ndarray, starts: np.ndarray, window_samples: int) -> np.ndarray:
    windows = signals[:, starts[:, None] + np.arange(window_samples)]
    bands = pywt.wavedec(windows, "db1", level=5)  # cA5, cD5, ... cD1, each [signals, windows, coefficients]
    return np.stack([measure(band, axis=2) for band in bands for measure in (np.mean, np.std)], axis=1)


@pytest.mark.parametrize("window_samples", [32, 33, 47, 63, 64, 399, 400, 1000])
def test_equals_pywt(rng: np.random.Generator, window_samples: int) -> None:
    signals = np.cumsum(rng.normal(0, 10, (3, 1000)), axis=1)
    starts = rng.integers(0, 1000 - window_samples + 1, 9)
    expected = oracle(signals, starts, window_samples)
    np.testing.assert_allclose(haar_statistics(signals, starts, window_samples), expected, rtol=1e-10, atol=1e-10)


def test_the_whole_signal_as_the_seed_calls_it(rng: np.random.Generator) -> None:
    signal = rng.normal(0, 50, 10_000)
    bands = pywt.wavedec(signal, "db1", level=5)
    found = haar_statistics(signal[None], np.array([0]), 10_000)[0, :, 0]
    np.testing.assert_allclose(found[::2], [band.mean() for band in bands], rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(found[1::2], [band.std() for band in bands], rtol=1e-9)
    assert len(found) == 2 * len(BANDS)


def test_a_small_spread_about_a_large_mean_keeps_its_digits(rng: np.random.Generator) -> None:
    small = rng.normal(0, 0.01, (1, 400))
    starts = np.array([0])
    spread = haar_statistics(small, starts, 400)[:, 1::2]
    np.testing.assert_allclose(haar_statistics(small + 1e6, starts, 400)[:, 1::2], spread, rtol=1e-6)
    assert (haar_statistics(np.full((1, 400), 1e6), starts, 400)[:, 1::2] == 0).all()
