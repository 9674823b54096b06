"""Late-bound normalisations against the seeds' own arithmetic on the original power: only the storage error is left.

Stored natural-log power is off by half a float16 step: at most 2^-8 (0.004) below 16, 2^-9 below 8, 2^-10 below 4.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from hms_dist.canvas.normalise import DataWide, Normaliser, QuantileLog10, Standardise
from hms_dist.panels.kaggle_spectrogram import log_power
from hms_dist.recordings.reader import read_spectrogram

DATA = Path(__file__).parents[3] / "shared/data"
HALF_STEP = 2**-8


def random_power(rng: np.random.Generator, gaps: float) -> np.ndarray:
    """Power [3 rows, 300, 4, 100], log-normal about e^1, with gaps, zero power, and some beyond every clip."""
    power = np.exp(rng.normal(1, 2.5, (3, 300, 4, 100)))
    power[rng.random(power.shape) < 0.01] = 0
    power[rng.random(power.shape) < 0.01] = 1e-4
    power[rng.random(power.shape) < 0.01] = 1e5
    power[rng.random(power.shape) < gaps] = np.nan
    power[:, :20, 1] = np.nan if gaps else 0
    return power.astype(np.float32)


def late_bound(normaliser: Normaliser, power: np.ndarray) -> np.ndarray:
    stored = np.stack([log_power(row) for row in power])
    return normaliser(torch.from_numpy(stored).float()).numpy()


def as_panels(power: np.ndarray) -> np.ndarray:
    return power.astype(np.float64).transpose(0, 2, 3, 1)


def seed_001(power: np.ndarray, low: float = -4, high: float = 8) -> np.ndarray:
    """Cut, ln, less the mean of what is there, divided by its deviation, gaps 0."""
    x = np.log(np.clip(power, np.exp(low), np.exp(high)))
    return np.nan_to_num((x - np.nanmean(x)) / (np.nanstd(x) + 1e-6), nan=0.0)


def ln_003(power: np.ndarray) -> np.ndarray:
    """Gaps to -1, cut, ln."""
    return np.log(np.clip(np.nan_to_num(power, nan=-1.0), np.exp(-6), np.exp(10)))


def largest_step(x: np.ndarray) -> float:
    """Storage error of standardised pictures whose logarithms `x` have this deviation."""
    return HALF_STEP / x.std() * 1.2  # the mean and the deviation are a little off as well


@pytest.mark.parametrize("gaps", [0.0, 0.005, 0.3])
class TestRandomPower:
    def test_seed_001_and_the_public_baseline(self, rng: np.random.Generator, gaps: float) -> None:
        power = random_power(rng, gaps)
        for found, row in zip(late_bound(Standardise(), power), as_panels(power), strict=True):
            np.testing.assert_allclose(found, seed_001(row), rtol=0, atol=largest_step(np.log(row[row > 0])))

    def test_seed_003(self, rng: np.random.Generator, gaps: float) -> None:
        power = random_power(rng, gaps)
        normaliser = Standardise(low_ln=-6, high_ln=10, gaps="low")
        for found, row in zip(late_bound(normaliser, power), as_panels(power), strict=True):
            x = ln_003(row)
            expected = (x - x.mean()) / (x.std() + 1e-6)
            np.testing.assert_allclose(found, expected, rtol=0, atol=largest_step(x))

    def test_seed_003_data_wide(self, rng: np.random.Generator, gaps: float) -> None:
        """The mean of the spectrograms' means, then the deviation of all values about it, of these three."""
        power = random_power(rng, gaps)
        x = np.stack([ln_003(row) for row in as_panels(power)])
        mean = np.mean([row.mean() for row in x])
        deviation = np.sqrt(np.mean((x - mean) ** 2))
        stored = torch.from_numpy(np.stack([log_power(row) for row in power])).float()
        known = DataWide().with_moments(DataWide().moments(stored))
        assert known.mean == pytest.approx(mean, abs=1e-4)
        assert known.deviation == pytest.approx(deviation, abs=1e-4)
        expected = (x - mean) / (deviation + 1e-6)
        np.testing.assert_allclose(late_bound(known, power), expected, rtol=0, atol=largest_step(x))

    def test_seed_002(self, rng: np.random.Generator, gaps: float) -> None:
        power = random_power(rng, gaps)
        for found, row in zip(late_bound(QuantileLog10(), power), as_panels(power), strict=True):
            x = np.log10(np.nan_to_num(row, nan=0.0) + 1e-6)
            low, high = np.quantile(x, [0.01, 0.99])
            expected = (np.clip(x, low, high) - low) / (high - low)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2 * HALF_STEP / np.log(10) / (high - low))


@pytest.mark.real_data
@pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")
def test_real_spectrograms() -> None:
    """Bounds in the documentation, on real files: 0.003 of a standard deviation; 0.15/255 between quantiles."""
    for path in sorted((DATA / "iiic/train_spectrograms").glob("*.parquet")):
        power = read_spectrogram(path)[1][None, :300]
        row = as_panels(power)[0]
        assert np.abs(late_bound(Standardise(), power)[0][..., : row.shape[2]] - seed_001(row)).max() <= 0.002
        x = ln_003(row)
        found = late_bound(Standardise(low_ln=-6, high_ln=10, gaps="low"), power)[0]
        assert np.abs(found[..., : row.shape[2]] - (x - x.mean()) / x.std()).max() <= 0.003
        x = np.log10(np.nan_to_num(row, nan=0.0) + 1e-6)
        low, high = np.quantile(x, [0.01, 0.99])
        found = late_bound(QuantileLog10(), power)[0]
        assert np.abs(found[..., : row.shape[2]] - (np.clip(x, low, high) - low) / (high - low)).max() <= 0.15 / 255
