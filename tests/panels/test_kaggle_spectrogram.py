"""The 10-minute panel: which rows, which order, and what becomes of gaps, zeros and odd values."""

import numpy as np
import pytest

from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.panels.panel import Window
from hms_dist.recordings.reader import Recording


def draw(power: np.ndarray, *, time_s: np.ndarray | None = None, offset_s: float = 0.0) -> np.ndarray:
    panel = KaggleSpectrogram()
    recording = Recording(
        eeg_id=1,
        eeg=np.zeros((10_000, len(CHANNELS)), np.float32),
        spectrogram_id=2,
        spectrogram=power.astype(np.float32),
        spectrogram_time_s=np.arange(len(power)) * 2.0 + 1 if time_s is None else time_s,
    )
    window = Window(recording=recording, start=0, spectrogram_offset_s=offset_s)
    drawn = panel.draw(panel.prepare(recording), window)
    assert drawn.shape == panel.spec.shape
    assert drawn.dtype == panel.spec.stored_dtype
    return drawn


def random_power(rng: np.random.Generator, num_rows: int) -> np.ndarray:
    return np.exp(rng.normal(0, 3, (num_rows, 4, 100)))


def test_the_logarithm_is_within_half_precision(rng: np.random.Generator) -> None:
    power = random_power(rng, 300)
    expected = np.log(power).transpose(1, 2, 0)
    np.testing.assert_allclose(draw(power), expected, rtol=2**-11, atol=1e-6)


def test_rows_from_the_offset_on(rng: np.random.Generator) -> None:
    """Rows are at 1, 3, 5, ... s: an offset of 100 s begins at 101, one of 101 there too, one of 101.5 at 103."""
    power = random_power(rng, 500)
    for offset_s, first in ((0, 0), (100, 50), (101, 50), (101.5, 51), (-5, 0)):
        np.testing.assert_array_equal(draw(power, offset_s=offset_s), draw(power[first : first + 300]))


def test_rows_are_chosen_by_their_time_not_their_number(rng: np.random.Generator) -> None:
    power, time_s = random_power(rng, 320), np.arange(320) * 2.0 + 41
    np.testing.assert_array_equal(draw(power, time_s=time_s, offset_s=61), draw(power[10:310]))


def test_missing_rows_are_gaps_at_the_end(rng: np.random.Generator) -> None:
    power = random_power(rng, 210)
    drawn = draw(power, offset_s=20)
    np.testing.assert_array_equal(drawn[..., :200], draw(power)[..., 10:210])
    assert np.isnan(drawn[..., 200:]).all()
    assert np.isnan(draw(power, offset_s=10_000)).all()


@pytest.mark.parametrize(
    ("power", "expected"),
    [(np.nan, np.nan), (0.0, -np.inf), (-0.0, -np.inf), (-1e-3, np.nan), (np.inf, np.nan), (1.0, 0.0)],
)
def test_special_values(rng: np.random.Generator, power: float, expected: float) -> None:
    values = random_power(rng, 300)
    values[7, 2, 31] = power
    drawn = draw(values)
    np.testing.assert_array_equal(drawn[2, 31, 7], np.float16(expected))
    drawn[2, 31, 7] = 0
    assert np.isfinite(drawn).all()


def test_extreme_powers_stay_finite(rng: np.random.Generator) -> None:
    values = random_power(rng, 300)
    values[0, 0, :2] = np.finfo(np.float32).max, np.finfo(np.float32).smallest_subnormal
    np.testing.assert_allclose(draw(values)[0, :2, 0], [88.72, -103.28], atol=0.05)


def test_frequencies_are_named_as_the_files_columns() -> None:
    rows_hz = KaggleSpectrogram().spec.rows_hz
    assert rows_hz[:6] == (0.59, 0.78, 0.98, 1.17, 1.37, 1.56)
    assert rows_hz[-1] == 19.92
    assert {3.13, 9.38, 12.11, 12.5, 15.63, 16.21} <= set(rows_hz)  # exact halves are rounded up
