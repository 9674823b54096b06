"""Resampling: against scipy and mne, against the known signal, and any part equal to the whole."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import resample_poly

from hms_dist.core.signal_format import RATE_HZ
from hms_dist.imports.resample import ratio_of, resampled

RATES = (100, 128, 200, 250, 256, 400, 500, 512, 1000, 1024, 2048, Fraction(999, 5), Fraction(5000, 23))


def whole(signal, rate, first=0, last=None):
    ratio = ratio_of(Fraction(rate))
    last = round(signal.shape[1] * ratio) if last is None else last
    return resampled(lambda a, b: signal[:, a:b], signal.shape[1], ratio, first, last)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_it_equals_scipy(rng, rate) -> None:
    signal = rng.normal(size=(2, int(rate * 12)))
    ratio = ratio_of(Fraction(rate))
    expected = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="reflect")
    np.testing.assert_allclose(whole(signal, rate, 0, expected.shape[1]), expected, atol=1e-12)


@pytest.mark.parametrize("rate", [256, 500, 1000])
def test_it_equals_mne(rng, rate) -> None:
    mne = pytest.importorskip("mne", reason="mne is not installed")
    signal = rng.normal(size=(2, rate * 20))
    expected = mne.filter.resample(
        signal, RATE_HZ, rate, method="polyphase", npad="auto", pad="reflect", verbose="error"
    )
    np.testing.assert_allclose(whole(signal, rate), expected, atol=1e-10)


@pytest.mark.parametrize("rate", RATES, ids=str)
def test_0_5_to_40_hz_within_half_a_percent(eeg, rate) -> None:
    signal = eeg(20)
    true, found = signal(RATE_HZ), whole(signal(float(rate)), rate, 0, 20 * RATE_HZ)
    middle = slice(RATE_HZ, -RATE_HZ)
    error = np.sqrt(((found - true)[:, middle] ** 2).mean(1) / (true[:, middle] ** 2).mean(1))
    assert error.max() < 0.005


@pytest.mark.parametrize("rate", [128, 256, 1000, Fraction(999, 5)], ids=str)
def test_any_part_equals_the_whole(rng, rate) -> None:
    signal = rng.normal(size=(3, int(rate * 9)))
    expected = whole(signal, rate)
    ends = [0, *np.sort(rng.integers(1, expected.shape[1], 6)).tolist(), expected.shape[1]]
    parts = [whole(signal, rate, first, last) for first, last in pairwise(ends) if last > first]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, atol=1e-12)


def test_only_what_a_part_needs_is_read(rng) -> None:
    asked = []

    def read(first, last):
        asked.append((first, last))
        return np.zeros((1, last - first))

    resampled(read, 256 * 86400, ratio_of(Fraction(256)), 200 * 3600, 200 * 3660)
    ((first, last),) = asked
    assert 256 * 3600 - 200 < first <= 256 * 3600 - 13
    assert 256 * 3660 + 13 <= last < 256 * 3660 + 200


@pytest.mark.parametrize("num_samples", [1, 2, 3, 20])
def test_short_stretches(num_samples) -> None:
    found = whole(np.full((1, num_samples), 7.0), 256, 0, max(1, round(num_samples * 200 / 256)))
    np.testing.assert_allclose(found, 7, rtol=2e-3)


def test_nan_spreads_by_the_filter_and_no_further(rng) -> None:
    signal = rng.normal(size=(2, 2560))
    clean = whole(signal, 256)
    signal[1, 1280:1300] = np.nan
    found = whole(signal, 256)
    np.testing.assert_array_equal(found[0], clean[0])
    missing = np.isnan(found[1])
    assert missing[1000:1015].all()
    assert 16 <= missing.sum() <= 16 + 2 * 12
    np.testing.assert_allclose(found[1][~missing], clean[1][~missing], atol=1e-12)


def test_rates_without_a_small_ratio_drift_less_than_a_sample_an_hour() -> None:
    for rate in ("199.8", "256.0163", "499.907", "250.0048", "511.9375"):
        assert abs(ratio_of(Fraction(rate)) * Fraction(rate) / RATE_HZ - 1) * 3600 * RATE_HZ < 1
    assert ratio_of(Fraction(256)) == Fraction(25, 32)
