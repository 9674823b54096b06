"""Normalisers against plain numpy, on random values with gaps and zero power."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.canvas.normalise import Affine, DataWide, Normaliser, QuantileLog10, Standardise, WaveletLog
from hms_dist.canvas.normalise.quantile import ascending, quantile
from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError

ALL: list[Normaliser] = [
    QuantileLog10(),
    Standardise(),
    Standardise(low_ln=-6, high_ln=10, gaps="low"),
    DataWide(mean=0.3, deviation=2.0),
    DataWide(mean=0.3, deviation=0.0, gaps="mean"),
    WaveletLog(),
    Affine(shift=80, scale=1 / 80),
]
OF_ITS_OWN = (QuantileLog10, Standardise, WaveletLog)
"""Those that scale a row's picture by itself."""


def log_power(rng: np.random.Generator, shape: tuple[int, ...] = (3, 4, 30, 50), *, gaps: float = 0.1) -> np.ndarray:
    """float16 natural-log power with gaps (NaN) and zero power (-inf)."""
    values = rng.normal(0, 3, shape)
    values[rng.random(shape) < gaps] = np.nan
    values[rng.random(shape) < 0.05] = -np.inf
    return values.astype(np.float16)


def apply(normaliser: Normaliser, values: np.ndarray) -> np.ndarray:
    return normaliser(torch.from_numpy(values).float()).numpy()


@pytest.mark.parametrize("gaps", [0.0, 0.005, 0.3])
def test_quantile_log10(rng: np.random.Generator, gaps: float) -> None:
    values = log_power(rng, gaps=gaps)
    for row, result in zip(values, apply(QuantileLog10(), values), strict=True):
        x = np.log10(np.nan_to_num(np.exp(row.astype(np.float64)), nan=0.0) + 1e-6)
        low, high = np.quantile(x, [0.01, 0.99])
        np.testing.assert_allclose(result, (np.clip(x, low, high) - low) / (high - low), atol=1e-6)


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_standardise(rng: np.random.Generator, gaps: float) -> None:
    values = log_power(rng, gaps=gaps)
    for row, result in zip(values, apply(Standardise(), values), strict=True):
        power = np.clip(np.exp(row.astype(np.float64)), np.exp(-4), np.exp(8))
        x = np.log(power)
        expected = np.nan_to_num((x - np.nanmean(x)) / (np.nanstd(x) + 1e-6), nan=0.0)
        np.testing.assert_allclose(result, expected, atol=1e-6)


@pytest.mark.parametrize("gaps", ["mean", "low"])
def test_data_wide_statistics(rng: np.random.Generator, gaps: str) -> None:
    """Over two passes, as the course report computes them; rows come in batches, and one of them is all gaps."""
    values = log_power(rng, (6, 4, 30, 50), gaps=0.3)
    values[1] = np.nan
    options = DataWide(gaps=gaps)
    batches = torch.from_numpy(values).float().split([1, 3, 2])
    known = options.with_moments(torch.cat([options.moments(batch) for batch in batches]))
    x = np.clip(values.astype(np.float64), -6, 10)
    if gaps == "low":
        x = np.nan_to_num(x, nan=-6.0)
    kept = [row for row in x if not np.isnan(row).all()]
    mean = np.mean([np.nanmean(row) for row in kept])
    deviation = np.sqrt(np.nanmean((np.stack(kept) - mean) ** 2))
    assert known.mean == pytest.approx(mean, abs=1e-12)
    assert known.deviation == pytest.approx(deviation, abs=1e-12)
    expected = np.nan_to_num((x - mean) / (deviation + 1e-6), nan=0.0)
    np.testing.assert_allclose(apply(known, values), expected, atol=1e-5)


def test_data_wide_statistics_of_nothing() -> None:
    known = DataWide(gaps="mean").with_moments(DataWide(gaps="mean").moments(torch.full((2, 4, 5, 6), torch.nan)))
    assert (known.mean, known.deviation) == (0.0, 0.0)


def test_wavelet_log(rng: np.random.Generator) -> None:
    values = (rng.normal(0, 1, (3, 4, 12, 50)) * rng.choice([0, 0.001, 1, 500], (3, 4, 12, 50))).astype(np.float16)
    values[:, :, 1::2] = np.abs(values[:, :, 1::2])
    for row, result in zip(values.astype(np.float64), apply(WaveletLog(), values), strict=True):
        logs = np.where(
            np.arange(12)[:, None] % 2, np.log(np.maximum(row, 0.01)), np.sign(row) * np.log(1 + np.abs(row))
        )
        np.testing.assert_allclose(result, (logs - logs.mean()) / (logs.std() + 1e-6), atol=1e-6)


def test_affine() -> None:
    decibel = np.linspace(-80, 0, 24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_allclose(apply(Affine(shift=40, scale=0.025), decibel), (decibel + 40) / 40, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99, 1.0])
def test_quantiles_are_numpys(rng: np.random.Generator, share: float) -> None:
    values = rng.normal(size=(3, 1007)).astype(np.float32)
    values[1] = np.round(values[1])  # ties
    ours = quantile(ascending(torch.from_numpy(values)), share).numpy()[:, 0]
    np.testing.assert_allclose(ours, np.quantile(values, share, axis=1), rtol=1e-6)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf, 0.0, 3.7, 65504.0, -65504.0])
@pytest.mark.parametrize("normaliser", ALL, ids=repr)
def test_a_picture_without_contrast(normaliser: Normaliser, value: float) -> None:
    result = apply(normaliser, np.full((2, 4, 5, 6), value, np.float16))
    assert np.isfinite(result).all()
    if isinstance(normaliser, OF_ITS_OWN) and not isinstance(normaliser, WaveletLog):
        np.testing.assert_array_equal(result, 0)


@pytest.mark.parametrize("normaliser", ALL, ids=repr)
@settings(max_examples=30, deadline=None)
@given(bits=st.integers(0, 2**32 - 1))
def test_finite_whatever_the_bits(normaliser: Normaliser, bits: int) -> None:
    words = np.random.default_rng(bits).integers(0, 2**16, (3, 2, 10, 20), dtype=np.uint16)
    assert np.isfinite(apply(normaliser, words.view(np.float16))).all()


@pytest.mark.parametrize("normaliser", ALL, ids=repr)
def test_a_row_is_normalised_by_itself(rng: np.random.Generator, normaliser: Normaliser) -> None:
    values = log_power(rng, (5, 4, 100, 30))
    batch = apply(normaliser, values)
    for row in range(5):
        np.testing.assert_array_equal(apply(normaliser, values[row : row + 1])[0], batch[row])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("normaliser", ALL, ids=repr)
def test_a_gpu_gives_the_same(rng: np.random.Generator, normaliser: Normaliser) -> None:
    values = torch.from_numpy(log_power(rng)).float()
    torch.testing.assert_close(normaliser(values.cuda()).cpu(), normaliser(values), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (QuantileLog10, {"low": 0.99, "high": 0.01}, "low: must be from 0 to below high"),
        (QuantileLog10, {"offset": 0.0}, "offset: must be above 0"),
        (Standardise, {"low_ln": 8.0}, "low_ln: must be below high_ln"),
        (Standardise, {"offset": 0.0}, "offset: must be above 0"),
        (DataWide, {"low_ln": 10.0}, "low_ln: must be below high_ln"),
        (DataWide, {"mean": 1.0}, "mean: give both mean and deviation, or neither"),
        (DataWide, {"mean": 1.0, "deviation": -1.0}, "deviation: must be 0 or above"),
        (WaveletLog, {"least_uv": 0.0}, "least_uv: must be above 0"),
        (WaveletLog, {"offset": 0.0}, "offset: must be above 0"),
    ],
)
def test_refused_options_are_named(cls: type, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(cls, options)
