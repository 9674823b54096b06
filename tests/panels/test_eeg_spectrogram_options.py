"""The EEG spectrogram beyond the published forms: free transforms, the zoom, other montages, cleaned signals."""

import numpy as np
import pytest
import pywt
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.signals.chains import ChainSignals
from hms_dist.signals.denoise import WaveletDenoise
from hms_dist.signals.filters import FilterChain
from hms_dist.signals.montage import CHAINS, differences, swap_sides

LINEAR = {"window_samples": 200, "fft_samples": 512, "hop_samples": 50, "num_mels": None, "min_hz": 2, "max_hz": 40}
ZOOM = {"window_samples": 64, "fft_samples": 1024, "hop_samples": 8, "centred": True, "span_s": 10.0}
CLEANED = ChainSignals(montage="common_average", gaps="interpolate", filters=FilterChain(), denoise=WaveletDenoise())
PANELS = {
    "linear": EegSpectrogram(**LINEAR),
    "linear_to_100_hz": EegSpectrogram(**{**LINEAR, "min_hz": 0, "max_hz": 100, "centred": True}),
    "zoom": EegSpectrogram(**ZOOM),
    "zoom_of_the_record": EegSpectrogram(**{**ZOOM, "centred": False, "reference": "record"}),
    "cleaned": EegSpectrogram(signals=CLEANED),
    "referential": EegSpectrogram(reference="record", signals=ChainSignals(montage="referential", gaps="zero")),
}
every_panel = pytest.mark.parametrize("name", PANELS)


def relative_decibel(chains: np.ndarray, window: int, fft: int, hop: int, rows: slice) -> np.ndarray:
    """Mean decibel of `chains` [4, n, samples] by scipy: frames inside the window, windows in the frame's middle."""
    margin = (fft - window) // 2
    taper = np.pad(signal.windows.hann(window, sym=False), (margin, fft - window - margin))
    starts = range(0, chains.shape[-1] - fft + 1, hop)
    power = np.stack([np.abs(np.fft.rfft(chains[..., s : s + fft] * taper)) ** 2 for s in starts], axis=-1)[:, :, rows]
    power = np.maximum(power, 1e-10)
    decibel = 10 * np.log10(power / power.max(axis=(2, 3), keepdims=True))
    return np.maximum(decibel, -80).mean(axis=1)


def test_rows_may_be_fourier_bins(draw, noise) -> None:
    """Any segment, overlap and transform length; frequency runs evenly."""
    eeg = np.nan_to_num(noise())
    chains = np.stack([differences(eeg, pairs) for pairs in CHAINS.values()])
    rows = slice(6, 103)  # 2.34 to 39.84 Hz: the bins from 2 to 40 Hz, 200 / 512 Hz apart
    expected = relative_decibel(chains, 200, 512, 50, rows)
    panel = PANELS["linear"]
    np.testing.assert_allclose(panel.spec.rows_hz, np.arange(6, 103) * 200 / 512)
    assert np.abs(draw(panel, eeg) - (expected + 80) * 255 / 80).max() <= 0.5 + 2e-2


def test_the_zoom_is_the_central_10_seconds_and_nothing_else(draw, noise) -> None:
    eeg, other = noise(14_000), noise(14_000)
    other[3000 + 4000 : 3000 + 6000] = eeg[3000 + 4000 : 3000 + 6000]
    panel = PANELS["zoom"]
    assert panel.spec.shape == (4, 128, 250)
    assert panel.spec.columns_s == (20.0, pytest.approx(29.96))
    drawn = draw(panel, eeg, 3000)
    np.testing.assert_array_equal(draw(panel, other, 3000), drawn)
    alone = panel.decibel(eeg[7000:9000])[..., :250]
    np.testing.assert_allclose(drawn, (alone + 80) * 255 / 80, atol=0.5 + 1e-3)


def test_the_zoom_of_a_record_is_its_picture_cut(draw, noise) -> None:
    eeg, panel = noise(16_000), PANELS["zoom_of_the_record"]
    whole = (panel.decibel(eeg) + 80) * 255 / 80
    for start in (0, 3200, 6000):
        first = (start + 4000) // 8
        cut = whole[..., first : first + panel.num_frames]
        np.testing.assert_allclose(draw(panel, eeg, start), cut, atol=0.5 + 1e-3)


def test_denoising_is_the_published_formula_on_the_50_seconds(draw, noise) -> None:
    eeg = np.nan_to_num(noise(12_000))
    chains = np.stack([differences(eeg[1000:11_000], pairs) for pairs in CHAINS.values()])
    for place in np.ndindex(chains.shape[:2]):
        smooth, *details = pywt.wavedec(chains[place], "db8", mode="periodization")
        limit = np.abs(details[-1] - details[-1].mean()).mean() / 0.6745 * np.sqrt(2 * np.log(10_000))
        kept = [pywt.threshold(level, limit, mode="hard") for level in details]
        chains[place] = pywt.waverec([smooth, *kept], "db8", mode="periodization")
    options = {**LINEAR, "signals": ChainSignals(denoise=WaveletDenoise())}
    expected = relative_decibel(chains, 200, 512, 50, slice(6, 103))
    difference = np.abs(draw(EegSpectrogram(**options), eeg, 1000) - (expected + 80) * 255 / 80)
    assert np.quantile(difference, 0.99) <= 0.6  # at -80 dB of what was removed, rounding shows
    assert np.abs(draw(EegSpectrogram(**LINEAR), eeg, 1000) - (expected + 80) * 255 / 80).mean() > 2


def test_filters_clear_their_band_without_a_mark_at_the_cut(draw, rng: np.random.Generator) -> None:
    """Hum of 15 Hz (so that it can be seen) vanishes from the first frame on, as filters run before the cut."""
    time_s = np.arange(14_000)[:, None] / 200
    eeg = rng.normal(0, 1, (14_000, 20)) + 50 * np.sin(2 * np.pi * 15 * time_s) * np.arange(20)
    filters = FilterChain(band_stops_hz=((14.0, 16.0),), band_pass_hz=None)
    plain = draw(EegSpectrogram(), eeg, 2000).astype(int)
    filtered = draw(EegSpectrogram(signals=ChainSignals(filters=filters)), eeg, 2000).astype(int)
    row = np.abs(np.array(EegSpectrogram().spec.rows_hz) - 15).argmin()
    assert (plain[:, row] >= 250).all()
    assert (filtered[:, row] < 100).all()
    assert np.median(filtered[:, :64]) > 180  # the noise is now the loudest


@every_panel
def test_a_10_hz_tone_lights_the_10_hz_row(draw, rng: np.random.Generator, name: str) -> None:
    amplitudes = rng.uniform(10, 100, 20)
    eeg = np.sin(2 * np.pi * 10 * np.arange(10_000) / 200)[:, None] * amplitudes
    drawn, rows_hz = draw(PANELS[name], eeg).astype(int), np.array(PANELS[name].spec.rows_hz)
    for chain in drawn:
        brightest = chain[:, 20:-20].mean(axis=1)
        assert abs(rows_hz[brightest.argmax()] - 10) < 0.4
        assert brightest.max() > 250


@every_panel
def test_a_burst_at_25_s_lights_the_right_columns(draw, rng: np.random.Generator, name: str) -> None:
    eeg = rng.normal(0, 0.5, (10_000, 20))
    burst = np.sin(2 * np.pi * 8 * np.arange(40) / 200) * np.hanning(40) * 200
    eeg[4980:5020, CHANNELS.index("T3")] += burst
    spec = PANELS[name].spec
    loudness = draw(PANELS[name], eeg)[0].astype(float).mean(axis=0)
    weights = np.maximum(loudness - (np.median(loudness) + loudness.max()) / 2, 0)
    times_s = np.linspace(*spec.columns_s, spec.shape[2])
    assert abs((weights * times_s).sum() / weights.sum() - 25) < 0.2


@every_panel
def test_exchanging_electrodes_exchanges_regions(draw, noise, name: str) -> None:
    eeg = noise(12_000)
    drawn = draw(PANELS[name], eeg, 1600)
    assert PANELS[name].spec.regions == ("LL", "LP", "RL", "RP")
    np.testing.assert_array_equal(draw(PANELS[name], swap_sides(eeg), 1600), drawn[[2, 3, 0, 1]])


@every_panel
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    value=st.sampled_from([0.0, 7.0, 3e38, np.nan]),
    noise_uv=st.sampled_from([0.0, 1e-30, 20.0, 1e6, 1e37]),
    gaps=st.sampled_from([0.0, 0.3, 0.9999, 1.0]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    num_samples=st.sampled_from([10_000, 23_456]),
)
def test_any_input_gives_a_picture_in_decibel(
    draw, name: str, seed: int, value: float, noise_uv: float, gaps: float, bad: float, num_samples: int
) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(over="ignore"):
        eeg = (value + noise_uv * rng.normal(size=(num_samples, 20))).astype(np.float32)
    eeg[rng.random(eeg.shape) < gaps] = bad
    draw(PANELS[name], eeg, num_samples - 10_000)
    decibel = PANELS[name].decibel(eeg)
    assert np.isfinite(decibel).all()
    assert decibel.min() >= -80 - 1e-4
    assert decibel.max() <= 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"span_s": 0.0}, "span_s: must be above 0 and at most 50, found 0"),
        ({"span_s": 50.1}, "span_s: must be above 0 and at most 50, found 50.1"),
        ({"span_s": 4.0}, "fft_samples: must be from window_samples to 800, the samples of span_s"),
        ({"span_s": 10.0, "hop_samples": 2001}, "hop_samples: must be from 1 to 2000"),
        ({"num_mels": None, "min_hz": 10.05, "max_hz": 10.15}, "max_hz: no Fourier bin from min_hz to it"),
        ({"signals": {"montage": "laplacian"}}, "bipolar, common_average, referential"),
        ({"signals": {"gaps": "median"}}, "zero, mean, interpolate"),
        ({"signals": {"denoise": {"wavelet": "cmor"}}}, "wavelet: unknown 'cmor'; one of: bior1.1"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(EegSpectrogram, options)
