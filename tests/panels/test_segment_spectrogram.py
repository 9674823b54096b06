"""The generated spectrogram against scipy.signal.spectrogram, a transform by hand, and by what one can see."""

import numpy as np
import pytest
from scipy import signal

from hms_dist.config.load import from_dict, load
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.segment_spectrogram import SegmentSpectrogram
from hms_dist.rendering.render import RenderConfig
from hms_dist.signals.chains import ChainSignals
from hms_dist.signals.denoise import WaveletDenoise, denoise
from hms_dist.signals.montage import swap_sides

SEED = {"segment_samples": 432, "overlap_samples": 400, "fft_samples": 1024, "min_hz": 0.5}
TIME_S = np.arange(10_000) / 200


def within_half_precision(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2**-10, atol=2**-10)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, {"nperseg": 256}),
        (SEED, {"nperseg": 432, "noverlap": 400, "nfft": 1024}),
        ({"taper": "hann", "detrend": "linear"}, {"nperseg": 256, "window": "hann", "detrend": "linear"}),
        ({"taper": "boxcar", "detrend": "none"}, {"nperseg": 256, "window": "boxcar", "detrend": False}),
    ],
)
def test_equals_scipy(draw, noise, chain_signals, options, given) -> None:
    """Arguments not given to SciPy here have its defaults: a Tukey window, the mean taken away, an eighth of
    overlap."""
    eeg, panel = noise(), SegmentSpectrogram(**options)
    drawn = draw(panel, eeg)
    for region, signals in enumerate(chain_signals(eeg)):
        found = [signal.spectrogram(values, 200, **given) for values in signals]
        rows_hz, times_s, _ = found[0]
        kept = (rows_hz >= panel.min_hz) & (rows_hz <= 20)
        within_half_precision(drawn[region], np.log(np.mean([density[kept] for *_, density in found], axis=0)))
    np.testing.assert_allclose(panel.spec.rows_hz, rows_hz[kept])
    np.testing.assert_allclose(np.linspace(*panel.spec.columns_s, panel.spec.shape[2]), times_s)


def test_a_frame_by_hand(draw, noise, chain_signals) -> None:
    """The periodogram of one padded segment, written out."""
    eeg, panel = noise(), SegmentSpectrogram(**SEED)
    taper = signal.windows.tukey(432, 0.25, sym=False)
    density = 0
    for values in chain_signals(eeg)[2]:
        segment = values[7 * 32 : 7 * 32 + 432]
        power = np.abs(np.fft.rfft((segment - segment.mean()) * taper, 1024)) ** 2
        density = density + 2 * power / (200 * (taper**2).sum()) / 4
    within_half_precision(draw(panel, eeg)[2, :, 7], np.log(density[3:103]))


def test_the_recipe_is_the_size_of_kaggles_and_denoises_the_50_seconds(draw, noise, repository) -> None:
    panels = load(RenderConfig, ["--config", str(repository / "configs/render/seed_003.yaml")]).panels
    plain, denoised = panels["generated"], panels["generated_denoised"]
    assert plain.spec.shape == panels["kaggle_spectrogram"].spec.shape
    np.testing.assert_allclose(plain.spec.rows_hz, panels["kaggle_spectrogram"].spec.rows_hz, atol=0.0051)
    assert plain == SegmentSpectrogram(**SEED)
    assert denoised == SegmentSpectrogram(**SEED, signals=ChainSignals(denoise=WaveletDenoise()))
    eeg = noise(12_000, missing=0.0)
    chains = plain.signals.ready(plain.signals.of_recording(eeg)[..., 1000:11_000])
    _, _, density = signal.spectrogram(denoise(WaveletDenoise(), chains), 200, nperseg=432, noverlap=400, nfft=1024)
    within_half_precision(draw(denoised, eeg, 1000), np.log(density[:, :, 3:103].mean(axis=1)))


def test_a_tone_lights_its_row_and_silence_is_minus_infinity(draw) -> None:
    eeg = np.zeros((10_000, 20))
    eeg[:, CHANNELS.index("Fp1")] = 100 * np.sin(2 * np.pi * 10 * TIME_S)
    panel = SegmentSpectrogram(**SEED)
    drawn = draw(panel, eeg)
    for region, chain in zip(panel.spec.regions, drawn, strict=True):
        if region[0] == "L":
            assert abs(panel.spec.rows_hz[chain.mean(axis=1).argmax()] - 10) < 0.3
        else:
            assert (chain == -np.inf).all()


def test_a_spike_lights_the_columns_about_it(draw) -> None:
    eeg = np.zeros((10_000, 20))
    eeg[5000, CHANNELS.index("T4")] = 2000
    panel = SegmentSpectrogram(**SEED)
    times_s = np.linspace(*panel.spec.columns_s, panel.spec.shape[2])
    lit = np.isfinite(draw(panel, eeg)[panel.spec.regions.index("RL")]).any(axis=0)
    assert np.abs(times_s[lit] - 25).max() <= 432 / 2 / 200
    assert lit[np.abs(times_s - 25) < 0.9].all()


def test_flipped_recordings_give_the_flipped_picture(draw, noise) -> None:
    eeg, panel = noise(), SegmentSpectrogram(**SEED)
    sides = [panel.spec.regions.index(region) for region in ("RL", "RP", "LL", "LP")]
    np.testing.assert_array_equal(draw(panel, swap_sides(eeg)), draw(panel, eeg)[sides])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segment_samples": 1}, "segment_samples: must be from 2 to 10000, found 1"),
        ({"overlap_samples": 256}, r"overlap_samples: must be from 0 to below segment_samples \(256\), found 256"),
        ({"fft_samples": 255}, r"fft_samples: must be from segment_samples \(256\) to 10000, found 255"),
        ({"max_hz": 101.0}, "max_hz: must be above min_hz and at most 100, found 101.0"),
        ({"min_hz": 0.1, "max_hz": 0.5}, "max_hz: no Fourier bin from min_hz to it; raise it or fft_samples"),
        ({"taper": "kaiser"}, "taper"),
    ],
)
def test_options_that_cannot_be(options, message) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(SegmentSpectrogram, options)
