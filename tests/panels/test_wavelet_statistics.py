"""The wavelet panel against pywt on the bipolar differences, and the positions of its windows."""

from itertools import chain

import numpy as np
import pytest
import pywt

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.wavelet_statistics import WaveletStatistics
from hms_dist.signals.chains import ChainSignals

WHOLE = WaveletStatistics(window_samples=10_000, num_windows=1)


def oracle(panel: WaveletStatistics, chain_signals: list[list[np.ndarray]]) -> np.ndarray:
    """One channel and one window at a time: [16, 12, windows]."""
    result = np.empty(panel.spec.shape)
    for channel, signal in enumerate(chain(*chain_signals)):
        for column, start in enumerate(panel.starts):
            bands = pywt.wavedec(signal[start : start + panel.window_samples], "db1", level=5)
            result[channel, :, column] = [value for band in bands for value in (band.mean(), band.std())]
    return result


@pytest.mark.parametrize("panel", [WHOLE, WaveletStatistics(window_samples=1001, num_windows=20)])
def test_equals_pywt(draw, noise, chain_signals, panel: WaveletStatistics) -> None:
    eeg = noise()
    np.testing.assert_allclose(draw(panel, eeg), oracle(panel, chain_signals(eeg)), rtol=2**-10, atol=1e-6)


def test_windows_of_2_s_reach_from_end_to_end_in_256_columns() -> None:
    panel = WaveletStatistics()
    assert panel.spec.shape == (16, 12, 256)
    assert (panel.starts[0], panel.starts[-1]) == (0, 9600)
    assert set(np.diff(panel.starts)) == {37, 38}
    assert panel.spec.columns_s == (1.0, 49.0)
    assert WHOLE.spec.shape == (16, 12, 1)
    assert WHOLE.spec.columns_s == (25.0, 25.0)


def test_a_row_sees_its_own_50_seconds(draw, noise) -> None:
    eeg = noise(14_000)
    np.testing.assert_array_equal(draw(WaveletStatistics(), eeg, 3000), draw(WaveletStatistics(), eeg[3000:13_000]))


def test_channels_are_the_chains_differences_or_electrodes(draw, noise) -> None:
    assert WHOLE.spec.regions[:5] == ("Fp1-F7", "F7-T3", "T3-T5", "T5-O1", "Fp1-F3")
    assert WHOLE.spec.axes == ("channel", "statistic", "time")
    single = WaveletStatistics(signals=ChainSignals(montage="referential"))
    assert single.spec.shape == (20, 12, 256)
    assert single.spec.regions[:5] == ("Fp1", "F7", "T3", "T5", "O1")
    assert np.isfinite(draw(single, noise())).all()


def test_slow_waves_light_the_slow_rows(draw) -> None:
    """Levels halve the band: 1 Hz is in cA5 (below 3.1 Hz), 5 Hz in cD5, 80 Hz in cD1 (above 50 Hz)."""
    for hz, row in ((1, 1), (5, 3), (9, 5), (18, 7), (37, 9), (80, 11)):
        eeg = np.zeros((10_000, 20))
        eeg[:, CHANNELS.index("Fp1")] = 20 * np.sin(2 * np.pi * hz * np.arange(10_000) / 200)
        spread = draw(WHOLE, eeg)[0, 1::2, 0]
        assert spread.argmax() == row // 2


def test_too_large_values_are_cut_at_what_float16_holds(draw) -> None:
    eeg = np.zeros((10_000, 20))
    eeg[:, CHANNELS.index("Fp1")] = 1e6
    drawn = draw(WaveletStatistics(), eeg)
    assert (drawn[0, 0] == 65_504).all()
    assert (drawn[0, 1:] == 0).all()
    assert (draw(WaveletStatistics(), -eeg)[0, 0] == -65_504).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_samples": 31}, "window_samples: must be from 32 to 10000, found 31"),
        ({"window_samples": 10_001}, "window_samples: must be from 32"),
        ({"num_windows": 0}, "num_windows: must be from 1 to 10000"),
        ({"num_windows": 2**31}, "num_windows: must be from 1 to 10000"),
        ({"num_windows": 1}, "num_windows: 1 requires window_samples 10000"),
        ({"window_samples": 10_000}, "num_windows: 1 requires window_samples 10000"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(WaveletStatistics, options)
