"""EEG spectrograms against librosa on fresh input, against the published pictures, and by what one can see."""

from pathlib import Path

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.eeg_spectrogram import EegSpectrogram
from hms_dist.recordings.reader import read_eeg
from hms_dist.signals.montage import swap_sides

DATA = Path(__file__).parents[2].parent / "shared/data"
SIXTEENTH = {"window_samples": 1000, "fft_samples": 1000, "hop_samples": 40, "centred": False}
BASELINE = {"window_samples": 128, "fft_samples": 1024, "hop_samples": 39, "centred": True}
LIBROSA = {
    "sixteenth_place": {"n_fft": 1000, "hop_length": 40, "center": False},
    "public_baseline": {"n_fft": 1024, "hop_length": 39, "win_length": 128},
}
FORMS = {"sixteenth_place": EegSpectrogram(**SIXTEENTH), "public_baseline": EegSpectrogram(**BASELINE)}
form = pytest.mark.parametrize("name", FORMS)
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs shared/data beside the checkout")


def oracle(chain_signals: list[list[np.ndarray]], name: str) -> np.ndarray:
    """The published recipe by librosa: decibel [4, 128, frames]."""
    chains = []
    for signals in chain_signals:
        decibel = []
        for signal in signals:
            power = librosa.feature.melspectrogram(y=signal, sr=200, n_mels=128, fmin=0, fmax=20, **LIBROSA[name])
            decibel.append(librosa.power_to_db(power, ref=np.max))
        chains.append(np.mean(decibel, axis=0))
    return np.stack(chains)


@form
def test_equals_librosa(draw, noise, chain_signals, name: str) -> None:
    eeg = noise()
    expected = oracle(chain_signals(eeg), name)
    np.testing.assert_allclose(FORMS[name].decibel(eeg) / 40, expected / 40, atol=1e-4)
    width = FORMS[name].spec.shape[2]
    levels = (expected[..., :width] + 80) * 255 / 80
    assert np.abs(draw(FORMS[name], eeg) - levels).max() <= 0.5 + 1e-3


def test_widths_of_the_published_forms() -> None:
    assert FORMS["sixteenth_place"].spec.shape == (4, 128, 226)
    assert FORMS["public_baseline"].spec.shape == (4, 128, 256)


def test_record_reference_is_one_picture_cut(draw, noise, chain_signals) -> None:
    """The loudest moment is outside the window: with the record's reference the window is darker."""
    eeg = noise(16_000)
    eeg[14_000:15_000] *= 20
    panel = EegSpectrogram(reference="record")
    whole = oracle(chain_signals(eeg), "sixteenth_place")
    for start in (0, 2_000, 6_000):
        expected = (whole[..., start // 40 :][..., :226] + 80) * 255 / 80
        assert np.abs(draw(panel, eeg, start) - expected).max() <= 0.5 + 1e-3
    assert draw(panel, eeg).mean() < draw(EegSpectrogram(), eeg).mean() - 20


@form
def test_window_reference_sees_its_window_alone(draw, noise, name: str) -> None:
    eeg = noise(14_000)
    np.testing.assert_array_equal(draw(FORMS[name], eeg, 3000), draw(FORMS[name], eeg[3000:13_000]))


@form
def test_a_10_hz_tone_lights_the_10_hz_row(draw, rng: np.random.Generator, name: str) -> None:
    tone = np.sin(2 * np.pi * 10 * np.arange(10_000) / 200)
    eeg = tone[:, None] * rng.uniform(10, 100, 20)  # of each electrode, its own amplitude
    drawn, rows_hz = draw(FORMS[name], eeg).astype(int), np.array(FORMS[name].spec.rows_hz)
    for region in range(4):
        brightest = drawn[region, :, 20:-20].mean(axis=1)
        assert abs(rows_hz[brightest.argmax()] - 10) < 0.35  # two rows
        assert brightest.max() == 255
        assert brightest.max() - brightest[np.abs(rows_hz - 10) > 4].max() > 50


@form
def test_a_burst_at_25_s_lights_the_right_columns(draw, rng: np.random.Generator, name: str) -> None:
    """At 25 s of the left chains: its centre is where the frames centred on it are."""
    eeg = rng.normal(0, 0.5, (10_000, 20))
    burst = np.sin(2 * np.pi * 8 * np.arange(40) / 200) * np.hanning(40) * 200
    eeg[4980:5020, CHANNELS.index("T3")] += burst
    panel = FORMS[name]
    loudness = draw(panel, eeg)[0].astype(float).mean(axis=0)
    weights = np.maximum(loudness - (np.median(loudness) + loudness.max()) / 2, 0)  # above all noise
    column = (weights * np.arange(len(weights))).sum() / weights.sum()
    first_centre = 0 if panel.centred else panel.fft_samples / 2
    assert abs(first_centre + column * panel.hop_samples - 5000) < 40


@form
def test_exchanging_electrodes_exchanges_regions(draw, noise, name: str) -> None:
    eeg = noise()
    assert FORMS[name].spec.regions == ("LL", "LP", "RL", "RP")
    np.testing.assert_array_equal(draw(FORMS[name], swap_sides(eeg)), draw(FORMS[name], eeg)[[2, 3, 0, 1]])


@form
def test_silence_is_0_db(draw, name: str) -> None:
    for value in (0.0, np.nan):
        assert (draw(FORMS[name], np.full((10_000, 20), value)) == 255).all()


@form
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([1e-38, 1e-12, 1.0, 1e12, 1e38]),
    gaps=st.floats(0, 1),
    offset=st.sampled_from([0.0, 1.0, 1e6]),
)
def test_any_input_gives_a_picture_in_decibel(name: str, seed: int, scale: float, gaps: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    eeg = ((rng.normal(0, 1, (10_000, 20)) + offset) * scale).clip(-3e38, 3e38).astype(np.float32)
    eeg[rng.random((10_000, 20)) < gaps] = rng.choice([np.nan, np.inf, -np.inf])
    decibel = FORMS[name].decibel(eeg)
    assert np.isfinite(decibel).all()
    assert decibel.min() >= -80 - 1e-4
    assert decibel.max() <= 1e-4


@form
@pytest.mark.real_data
@real_data
@pytest.mark.parametrize("eeg_id", [9100000, 9100012, 9100020])
def test_published_pictures(draw, name: str, eeg_id: int) -> None:
    eeg = read_eeg(DATA / f"iiic/train_eegs/{eeg_id}.parquet")
    with np.load(DATA / f"parity/golden_{eeg_id}.npz") as arrays:
        if name == "sixteenth_place":
            expected = arrays["eeg_spectrogram_16th_u8"].transpose(2, 0, 1).astype(int)
            assert np.abs(draw(EegSpectrogram(reference="record", **SIXTEENTH), eeg) - expected).max() <= 1
        else:
            expected = arrays["eeg_spectrogram_baseline_f32"].transpose(2, 0, 1)
            decoded = draw(FORMS[name], eeg) / 255 * 2 - 1
            assert np.abs(decoded - expected).max() <= np.ptp(expected) / 255


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_samples": 127}, "window_samples: must be even"),
        ({"fft_samples": 0}, "fft_samples: must be even"),
        ({"fft_samples": 512}, "fft_samples: must be from window_samples"),
        ({"fft_samples": 10_002}, "fft_samples: must be from window_samples"),
        ({"hop_samples": 0}, "hop_samples: must be from 1"),
        ({"max_hz": 101.0}, "max_hz: must be above min_hz"),
        ({"min_hz": 20.0}, "max_hz: must be above min_hz"),
        ({"num_mels": 0}, "num_mels: must be at least 1"),
        ({"num_mels": 512}, "num_mels: some rows are narrower than a Fourier bin"),
        ({"num_mels": 2**31}, "num_mels: some rows are narrower than a Fourier bin"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(EegSpectrogram, options)
