"""Normalisers against plain numpy, on random values with gaps and zero power."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.canvas.normalise import Affine, Normaliser, QuantileLog10, Standardise
from hms_dist.canvas.normalise.quantile import ascending, quantile
from hms_dist.config import from_dict
from hms_dist.errors import UserError

ALL: list[Normaliser] = [QuantileLog10(), Standardise(), Affine(shift=80, scale=1 / 80)]


def log_power(seed: int, shape: tuple[int, ...] = (3, 4, 30, 50), *, gaps: float = 0.1) -> np.ndarray:
    """float16 natural-log power with gaps (NaN) and zero power (-inf)."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 3, shape)
    values[rng.random(shape) < gaps] = np.nan
    values[rng.random(shape) < 0.05] = -np.inf
    return values.astype(np.float16)


def apply(normaliser: Normaliser, values: np.ndarray) -> np.ndarray:
    return normaliser(torch.from_numpy(values).float()).numpy()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [0.0, 0.005, 0.3])
def test_quantile_log10(seed: int, gaps: float) -> None:
    values = log_power(seed, gaps=gaps)
    for row, result in zip(values, apply(QuantileLog10(), values), strict=True):
        x = np.log10(np.nan_to_num(np.exp(row.astype(np.float64)), nan=0.0) + 1e-6)
        low, high = np.quantile(x, [0.01, 0.99])
        np.testing.assert_allclose(result, (np.clip(x, low, high) - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_standardise(seed: int, gaps: float) -> None:
    values = log_power(seed, gaps=gaps)
    for row, result in zip(values, apply(Standardise(), values), strict=True):
        power = np.clip(np.exp(row.astype(np.float64)), np.exp(-4), np.exp(8))
        x = np.log(power)
        expected = np.nan_to_num((x - np.nanmean(x)) / (np.nanstd(x) + 1e-6), nan=0.0)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_affine() -> None:
    decibel = np.linspace(-80, 0, 24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(apply(Affine(shift=40, scale=0.025), decibel), (decibel + 40) / 40, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_quantiles_are_numpys(share: float) -> None:
    values = np.random.default_rng(0).normal(size=(3, 1007)).astype(np.float32)
    values[1] = np.round(values[1])  # ties
    ours = quantile(ascending(torch.from_numpy(values)), share).numpy()[:, 0]
    np.testing.assert_allclose(ours, np.quantile(values, share, axis=1), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0, 3.7, 65504.0, -65504.0])
@pytest.mark.parametrize("normaliser", ALL, ids=lambda item: type(item).__name__)
def test_a_picture_without_contrast(normaliser: Normaliser, value: float) -> None:
    result = apply(normaliser, np.full((2, 4, 5, 6), value, np.float16))
    assert np.isfinite(result).all()
    if not isinstance(normaliser, Affine):
        np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("normaliser", ALL, ids=lambda item: type(item).__name__)
@settings(max_examples=30, deadline=None)
@given(bits=st.integers(0, 2**32 - 1))
def test_finite_whatever_the_bits(normaliser: Normaliser, bits: int) -> None:
    words = np.random.default_rng(bits).integers(0, 2**16, (3, 2, 10, 20), dtype=np.uint16)
    assert np.isfinite(apply(normaliser, words.view(np.float16))).all()


@pytest.mark.parametrize("normaliser", ALL, ids=lambda item: type(item).__name__)
def test_a_row_is_normalised_by_itself(normaliser: Normaliser) -> None:
    values = log_power(5, (5, 4, 100, 30))
    batch = apply(normaliser, values)
    for row in range(5):
        np.testing.assert_array_equal(apply(normaliser, values[row : row + 1])[0], batch[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("normaliser", ALL, ids=lambda item: type(item).__name__)
def test_a_gpu_gives_the_same(normaliser: Normaliser) -> None:
    values = torch.from_numpy(log_power(6)).float()
    torch.testing.assert_close(normaliser(values.cuda()).cpu(), normaliser(values), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (QuantileLog10, {"low": 0.99, "high": 0.01}, "low: must be from 0 to below high"),
        (QuantileLog10, {"offset": 0.0}, "offset: must be above 0"),
        (Standardise, {"low_ln": 8.0}, "low_ln: must be below high_ln"),
        (Standardise, {"offset": 0.0}, "offset: must be above 0"),
    ],
)
def test_refused_options_are_named(cls: type, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(cls, options)
