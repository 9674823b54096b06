"""Wavelet denoising against the published formula, written out with PyWavelets a signal at a time."""

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.signals.denoise import WaveletDenoise, denoise


def published(signal: np.ndarray, wavelet: str, threshold: str) -> np.ndarray:
    coefficients = pywt.wavedec(signal, wavelet, mode="periodization")
    finest = coefficients[-1]
    sigma = np.mean(np.abs(finest - np.mean(finest))) / 0.6745
    limit = sigma * np.sqrt(2 * np.log(len(signal)))
    kept = [coefficients[0], *(pywt.threshold(level, limit, mode=threshold) for level in coefficients[1:])]
    return pywt.waverec(kept, wavelet, mode="periodization")[: len(signal)]


@pytest.mark.parametrize("threshold", ["hard", "soft"])
@pytest.mark.parametrize(("wavelet", "num_samples"), [("db8", 10_000), ("db1", 999), ("sym5", 2001), ("coif3", 500)])
def test_equals_the_published_formula(rng: np.random.Generator, wavelet: str, num_samples: int, threshold: str) -> None:
    signals = np.cumsum(rng.normal(0, 3, (2, 3, num_samples)), axis=-1) + rng.normal(0, 5, (2, 3, num_samples))
    found = denoise(WaveletDenoise(wavelet=wavelet, threshold=threshold), signals)
    assert found.shape == signals.shape
    for place in np.ndindex(2, 3):
        np.testing.assert_allclose(found[place], published(signals[place], wavelet, threshold), atol=1e-9)


@pytest.mark.parametrize("threshold", ["hard", "soft"])
def test_noise_goes_and_waves_stay(rng: np.random.Generator, threshold: str) -> None:
    wave = 100 * np.sin(2 * np.pi * 3 * np.arange(10_000) / 200)
    found = denoise(WaveletDenoise(threshold=threshold), wave + rng.normal(0, 5, 10_000))
    assert np.abs(denoise(WaveletDenoise(threshold=threshold), rng.normal(0, 5, 10_000))).mean() < 1
    assert np.corrcoef(found, wave)[0, 1] > 0.995
    if threshold == "hard":
        assert np.std(found - wave) < 2.5


def test_too_short_to_have_details(rng: np.random.Generator) -> None:
    signals = rng.normal(size=(2, 20))
    np.testing.assert_array_equal(denoise(WaveletDenoise(wavelet="db8"), signals), signals)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_samples=st.sampled_from([1, 31, 1000, 10_000]),
    scale=st.sampled_from([0.0, 1e-300, 1.0, 1e6, 1e38]),
    offset=st.sampled_from([0.0, 1.0]),
    threshold=st.sampled_from(["hard", "soft"]),
)
def test_finite_in_finite_out(seed: int, num_samples: int, scale: float, offset: float, threshold: str) -> None:
    signals = (np.random.default_rng(seed).normal(size=(2, num_samples)) + offset) * scale
    found = denoise(WaveletDenoise(threshold=threshold), signals)
    assert found.shape == signals.shape
    assert np.isfinite(found).all()


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"wavelet: unknown 'db99'; one of: bior1.1, .*db8.*, sym9"):
        from_dict(WaveletDenoise, {"wavelet": "db99"})
    with pytest.raises(UserError, match=r"threshold: .*hard, soft"):
        from_dict(WaveletDenoise, {"threshold": "firm"})
