"""Scalograms: levels in decibel, frequencies in their rows, chains by their signals."""

import numpy as np
import pytest

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.scalogram import Scalogram
from hms_dist.signals.montage import CHAINS
from hms_dist.signals.morlet import instants_a_column

TIME_S = np.arange(10_000) / 200


def level(decibel: float) -> float:
    return (decibel + 20) * 255 / 80


def test_mean_amplitude_of_the_chains_signals(draw, noise, chain_signals) -> None:
    """Each column of a chain from its four signals alone, by the definition of the wavelet transform."""
    panel = Scalogram(num_scales=8, num_columns=32, max_hz=1.2)
    assert instants_a_column(10_000 / 32, 200, panel.rows_hz, 6.0).max() == 1  # the column's middle
    eeg = noise()
    drawn = draw(panel, eeg)
    instants = (np.arange(32) + 0.5) * 312.5 - 0.5
    distance = np.arange(-10_000, 20_000) - instants[:, None]
    for chain, signals in enumerate(chain_signals(eeg)):
        for row, hz in list(enumerate(panel.rows_hz))[chain::4]:
            width = 6 * 200 / (2 * np.pi * hz)
            wavelets = np.exp(-0.5 * (distance / width) ** 2 - 2j * np.pi * hz / 200 * distance)
            amplitude = 0.0
            for signal in signals:
                extended = np.concatenate((signal[::-1], signal, signal[::-1]))
                amplitude += np.abs(wavelets @ extended) * 2 / (width * np.sqrt(2 * np.pi)) / 4
            expected = level(20 * np.log10(amplitude)).clip(0, 255)
            assert np.abs(drawn[chain, row] - expected).max() <= 0.51


@pytest.mark.parametrize("hz", [1.0, 3.0, 10.0, 30.0])
def test_a_tone_lights_its_row_at_its_amplitude(draw, hz: float) -> None:
    panel = Scalogram()
    eeg = np.zeros((10_000, 20))
    for plus, _ in (pair for chain in CHAINS.values() for pair in chain[::2]):  # in 3 of 4 differences
        eeg[:, CHANNELS.index(plus)] = 50 * np.sin(2 * np.pi * hz * TIME_S)
    drawn = draw(panel, eeg)[:, :, 40:-40].astype(float)
    row = np.abs(np.log(np.array(panel.spec.rows_hz) / hz)).argmin()
    for region in range(4):
        means = drawn[region].mean(axis=1)
        assert abs(means.argmax() - row) <= 1
        assert abs(means.max() - level(20 * np.log10(0.75 * 50))) < 2
        assert means[np.abs(np.arange(64) - row) > 20].max() < means.max() - 100


def test_rows_rise_from_half_a_hertz_to_40_hz() -> None:
    spec = Scalogram().spec
    assert spec.shape == (4, 64, 256)
    assert (spec.rows_hz[0], spec.rows_hz[-1]) == pytest.approx((0.5, 40))
    assert spec.columns_s == pytest.approx((25 / 256, 50 - 25 / 256))
    assert (np.diff(spec.rows_hz) > 0).all()


def test_a_row_sees_its_own_50_seconds(draw, noise) -> None:
    eeg = noise(14_000)
    np.testing.assert_array_equal(draw(Scalogram(), eeg, 3000), draw(Scalogram(), eeg[3000:13_000]))


def test_time_reversed_is_reversed(draw, rng: np.random.Generator) -> None:
    eeg = rng.normal(0, 30, (10_000, 20)).astype(np.float32)
    backward = draw(Scalogram(), eeg[::-1])[..., ::-1]
    assert np.abs(draw(Scalogram(), eeg).astype(int) - backward).max() <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_scales": 1}, "num_scales: must be from 2 to 10000"),
        ({"num_scales": 2**31}, "num_scales: must be from 2 to 10000"),
        ({"num_cycles": 4.0}, "num_cycles: must be from 5 to 30"),
        ({"min_hz": 0.0}, "min_hz: must be at least 0.1"),
        ({"min_hz": 50.0}, "min_hz: must be at least 0.1 and below max_hz, found 50.0 and 40.0"),
        ({"max_hz": 60.0}, "max_hz: wavelets of 60.0 Hz and num_cycles 6.0 reach beyond 100 Hz"),
        ({"num_columns": 0}, "num_columns: must be from 1"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(Scalogram, options)
