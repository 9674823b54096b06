"""The multitaper panel: against tapered periodograms, and by what one can see."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS, FREQUENCIES_HZ
from hms_dist.panels.multitaper import Multitaper
from hms_dist.signals.chains import ChainSignals
from hms_dist.signals.denoise import WaveletDenoise
from hms_dist.signals.filters import FilterChain
from hms_dist.signals.montage import swap_sides

TIME_S = np.arange(10_000) / 200


def test_equals_tapered_periodograms(draw, noise, chain_signals) -> None:
    eeg, tapers = noise(), signal.windows.dpss(800, 2.0, 3)
    drawn = draw(Multitaper(), eeg)
    for region, signals in enumerate(chain_signals(eeg)):
        density = 0
        for values in signals:
            frames = np.stack([values[start : start + 800] for start in range(0, 9201, 100)])
            frames -= frames.mean(axis=1, keepdims=True)
            density = density + sum(np.abs(np.fft.rfft(frames * taper, 1024)) ** 2 for taper in tapers) / 3 / 100 / 4
        decibel = 10 * np.log10(density[:, 3:103].T).clip(-30, 60)
        assert np.abs(drawn[region] - (decibel + 30) * 255 / 90).max() <= 0.5 + 1e-2


def test_rows_are_those_of_the_10_minute_spectrogram() -> None:
    spec = Multitaper().spec
    assert spec.shape == (4, 100, 93)
    np.testing.assert_allclose(spec.rows_hz, FREQUENCIES_HZ, atol=0.0051)
    assert spec.columns_s == (2.0, 48.0)


def test_a_10_hz_tone_lights_the_10_hz_row_at_its_power(draw) -> None:
    """A sine of 100 uV: 5,000 uV^2, spread over the 1 Hz that the tapers resolve: 37 dB."""
    eeg = np.zeros((10_000, 20))
    eeg[:, CHANNELS.index("Fp1")] = 100 * np.sin(2 * np.pi * 10 * TIME_S)
    drawn, rows_hz = draw(Multitaper(), eeg) / 255 * 90 - 30, np.array(Multitaper().spec.rows_hz)
    one_of_four = 10 * np.log10(5000 / 4)
    for region, chain in zip(Multitaper().spec.regions, drawn, strict=True):
        if region[0] == "L":
            assert abs(rows_hz[chain.mean(axis=1).argmax()] - 10) < 0.5
            assert abs(chain[np.abs(rows_hz - 10).argmin()].mean() - one_of_four) < 1.5
            assert chain[np.abs(rows_hz - 10) > 2].max() < one_of_four - 30
        else:
            assert (chain == -30).all()


def test_a_spike_at_25_s_lights_the_right_columns(draw) -> None:
    eeg = np.zeros((10_000, 20))
    eeg[5000, CHANNELS.index("T4")] = 2000
    panel = Multitaper()
    times_s = np.linspace(*panel.spec.columns_s, panel.spec.shape[2])
    drawn = draw(panel, eeg)[panel.spec.regions.index("RL")].astype(float)
    assert (drawn[:, np.abs(times_s - 25) > 2] == 0).all()
    assert (drawn[:, np.abs(times_s - 25) < 1] > 0).all()
    np.testing.assert_allclose(np.average(times_s, weights=drawn.sum(axis=0)), 25, atol=0.25)  # half a step


@pytest.mark.parametrize("montage", ["bipolar", "common_average", "referential"])
def test_exchanging_electrodes_exchanges_regions(draw, noise, montage: str) -> None:
    eeg, panel = noise(), Multitaper(signals=ChainSignals(montage=montage))
    np.testing.assert_array_equal(draw(panel, swap_sides(eeg)), draw(panel, eeg)[[2, 3, 0, 1]])


def test_a_label_row_is_drawn_from_its_own_window(draw, noise) -> None:
    eeg = noise(14_000)
    np.testing.assert_array_equal(draw(Multitaper(), eeg, 3000), draw(Multitaper(), eeg[3000:13_000]))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    value=st.sampled_from([0.0, -40.0, 3e38, np.nan]),
    noise_uv=st.sampled_from([0.0, 1e-20, 30.0, 1e6, 1e37]),
    gaps=st.sampled_from([0.0, 0.2, 1.0]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    num_samples=st.sampled_from([10_000, 31_234]),
    signals=st.sampled_from(
        [
            ChainSignals(),
            ChainSignals(montage="common_average", gaps="interpolate", filters=FilterChain()),
            ChainSignals(montage="referential", gaps="zero", denoise=WaveletDenoise()),
        ]
    ),
)
def test_any_input_gives_a_picture(
    draw, seed: int, value: float, noise_uv: float, gaps: float, bad: float, num_samples: int, signals: ChainSignals
) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        eeg = (value + noise_uv * rng.normal(size=(num_samples, 20))).astype(np.float32)
    eeg[rng.random(eeg.shape) < gaps] = bad
    panel = Multitaper(signals=signals)
    drawn = draw(panel, eeg, num_samples - 10_000)
    recorded = gaps < 1 and np.isfinite(value)
    if not recorded:
        assert (drawn == 0).all()
    elif noise_uv == 1e6 and value < 1:
        assert (drawn == 255).any()
    np.testing.assert_array_equal(panel.spec.decode(panel.spec.encode(drawn)), drawn)
    density = panel.density(signals.ready(signals.of_recording(eeg)[..., :10_000]))
    assert np.isfinite(density).all()
    assert density.min() >= 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step_s": 0.0}, "step_s: must be from 0.005 to 50, found 0"),
        ({"window_s": 0.0}, "fft_samples: must be even, from the samples of window_s \\(0, at least 2"),
        ({"window_s": 6.0}, "fft_samples: must be even, from the samples of window_s \\(1200"),
        ({"fft_samples": 1023}, "fft_samples: must be even"),
        ({"fft_samples": 10_002}, "fft_samples: must be even"),
        ({"max_hz": 101.0}, "max_hz: must be above min_hz and at most 100"),
        ({"min_hz": 20.0}, "max_hz: must be above min_hz"),
        ({"min_hz": 10.0, "max_hz": 10.1}, "max_hz: no Fourier bin from min_hz to it"),
        ({"time_half_bandwidth": 0.5}, "time_half_bandwidth: must be at least 1 and below 400"),
        ({"time_half_bandwidth": 400.0}, "time_half_bandwidth: must be at least 1 and below 400"),
        ({"num_tapers": 0}, "num_tapers: must be from 1 to twice time_half_bandwidth \\(4\\), found 0"),
        ({"num_tapers": 5}, "num_tapers: must be from 1 to twice"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(Multitaper, options)
