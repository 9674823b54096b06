"""Panels of audio against librosa, on real clips and on synthetic ones."""

from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile

from hms_dist.datasets import AUDIO_RATE_HZ, Dataset
from hms_dist.panels import AudioPcen, LogMel, Waveform
from hms_dist.panels.panel import AudioWindow
from hms_dist.recordings.audio import AudioRecording, read_audio

CLIPS = Path(__file__).parents[3] / "shared/data/audio"
RANGE_LN = 7 * np.log(10)
"""Log power is compared within 70 dB of the loudest: the rounding of a float32 transform is 120 dB below."""
SAME = {"gain": 0.98, "bias": 2.0, "power": 0.5, "time_constant": 0.4, "eps": 1e-6}


def mel_of(samples: np.ndarray, panel: LogMel | AudioPcen) -> np.ndarray:
    """librosa's mel power, in float64."""
    return librosa.feature.melspectrogram(
        y=samples.astype(np.float64), sr=panel.rate_hz, n_fft=panel.fft_samples, win_length=panel.window_samples,
        hop_length=panel.hop_samples, n_mels=panel.num_mels, fmin=panel.min_hz, fmax=panel.max_hz,
        pad_mode="constant" if panel.padding == "zeros" else "reflect",
    )  # fmt: skip


def log_difference(panel: LogMel, samples: np.ndarray) -> float:
    """Largest difference of natural-log power within 70 dB of the loudest."""
    expected = np.log(np.maximum(mel_of(samples, panel), panel.least))
    found = panel.log_power(samples[None])[0]
    assert found.shape == expected.shape == panel.spec.shape[1:]
    return float(np.abs(found - expected)[expected > expected.max() - RANGE_LN].max())


def in_16_bits(samples: np.ndarray) -> np.ndarray:
    return (np.rint(samples * 32768).clip(-32768, 32767) / 32768).astype(np.float32)


def calls(rng: np.random.Generator, rate_hz: int, seconds: float) -> np.ndarray:
    """Noise with gliding calls, 16 bits [samples]."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    glide = np.sin(2 * np.pi * rate_hz * (0.05 + 0.1 * time_s / seconds) * time_s) * (np.sin(8 * time_s) > 0)
    return in_16_bits(0.02 * rng.standard_normal(len(time_s)) + rng.uniform(0.1, 0.5) * glide)


@pytest.mark.real_data
@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs shared/data beside the checkout")
@pytest.mark.parametrize("name", ["oss_birds_10s", "maad_spinetail"])
def test_real_clips_equal_librosas(name):
    samples = in_16_bits(read_audio(CLIPS / f"{name}.wav", AUDIO_RATE_HZ).samples[0, : 10 * AUDIO_RATE_HZ])
    assert LogMel().spec.shape == (1, 128, 938)
    assert log_difference(LogMel(), samples) < 1e-4
    assert log_difference(LogMel(min_hz=50, max_hz=14_000, num_mels=64), samples) < 1e-4
    for panel in (AudioPcen(), AudioPcen(max_hz=14_000)):
        power = mel_of(samples, panel) * panel.scale
        expected = librosa.pcen(power, sr=AUDIO_RATE_HZ, hop_length=512, **SAME)
        assert np.abs(panel.normalised(samples[None])[0] - expected).max() < 1e-4 * expected.max()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window_samples": 200, "hop_samples": 77, "num_mels": 40, "min_hz": 30.0, "max_hz": 1800.0},
        {"fft_samples": 512, "window_samples": 400},  # 2 * 4^4
        {"fft_samples": 128, "window_samples": 128, "num_mels": 20},  # 2 * 4^3
        {"fft_samples": 360, "window_samples": 360, "hop_samples": 90, "num_mels": 30, "padding": "reflect"},
    ],
)
def test_every_parameter_equals_librosas(rng, options):
    panel = LogMel(
        **{"rate_hz": 4000, "window_s": 1.0, "fft_samples": 256, "window_samples": 256, "hop_samples": 64}
        | {"num_mels": 32} | options
    )  # fmt: skip
    assert log_difference(panel, calls(rng, 4000, 1.0)) < 1e-4


def test_the_mean_starts_at_one_as_in_librosa_or_at_the_first_frame(rng):
    samples = calls(rng, 4000, 1.0)
    options = {"rate_hz": 4000, "window_s": 1.0, "fft_samples": 256, "window_samples": 256, "hop_samples": 64}
    panel = AudioPcen(**options, num_mels=32)
    power = mel_of(samples, panel) * panel.scale
    expected = librosa.pcen(power, sr=4000, hop_length=64, **SAME)
    np.testing.assert_allclose(panel.normalised(samples[None])[0], expected, atol=1e-4 * expected.max())
    first = AudioPcen(**options, num_mels=32, start="first_frame").normalised(samples[None])[0]
    weight = 1 - first[:, :1] * 0  # the state before the first frame, for librosa: (1 - b) S[0]
    smoothing = (np.sqrt(1 + 4 * (0.4 * 4000 / 64) ** 2) - 1) / (2 * (0.4 * 4000 / 64) ** 2)
    expected = librosa.pcen(
        power, sr=4000, hop_length=64, **SAME, zi=(1 - smoothing) * power[:, :1] * weight.astype(np.float64)
    )
    np.testing.assert_allclose(first, expected, atol=1e-4 * expected.max())


def test_a_tone_is_in_its_row(rng):
    panel = LogMel()
    hertz = float(rng.uniform(200, 20_000))
    tone = in_16_bits(0.5 * np.sin(2 * np.pi * hertz * np.arange(480_000) / 48_000))
    rows_hz = np.array(panel.spec.rows_hz)
    loudest = int(panel.log_power(tone[None])[0].mean(axis=1).argmax())
    assert abs(loudest - np.abs(rows_hz - hertz).argmin()) <= 1


def test_a_waveform_keeps_16_bits_and_its_margins(rng):
    panel = Waveform(rate_hz=4000, window_s=1.0, margin_s=0.25)
    stored = rng.integers(-32768, 32768, (1, 9000)).astype(np.int16)
    recording = AudioRecording(name="a", samples=stored.astype(np.float32) / 32768, rate_hz=4000)
    drawn = panel.draw(None, AudioWindow(recording=recording, start=2000, num_samples=4000))
    assert np.array_equal(drawn, stored[:, 1000:7000])
    at_the_end = panel.draw(None, AudioWindow(recording=recording, start=5000, num_samples=4000))
    assert np.array_equal(at_the_end[:, :5000], stored[:, 4000:])
    assert not at_the_end[:, 5000:].any()
    for codec in ("npy", "npy.zst"):
        spec = Waveform(rate_hz=4000, window_s=1.0, margin_s=0.25, codec=codec).spec
        assert np.array_equal(spec.decode(spec.encode(drawn)), drawn)
        assert spec.columns_s == pytest.approx((-0.25, 1.25 - 1 / 4000))


@pytest.mark.parametrize("kind", [LogMel, AudioPcen])
@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, 100.0])
def test_silence_and_clipped_samples_give_finite_pictures(kind, level):
    options = {"rate_hz": 4000, "window_s": 1.0, "fft_samples": 256, "window_samples": 256, "hop_samples": 64}
    drawn = kind(**options, num_mels=32).draw_samples(np.full((1, 4000), level, np.float32))
    assert drawn.dtype == np.float16
    assert np.isfinite(drawn).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_samples": 4096}, "window_samples: must be from 2 to fft_samples"),
        ({"fft_samples": 2049}, "fft_samples: must be even"),
        ({"fft_samples": 1 << 17}, "fft_samples: must be even and at most 65536"),
        ({"hop_samples": 0}, "hop_samples: must be from 1"),
        ({"max_hz": 30_000.0}, "max_hz: must be above min_hz and at most 24000"),
        ({"num_mels": 0}, "num_mels: must be from 1 to 1024"),
        ({"num_mels": 1000}, "narrower than a Fourier bin"),
        ({"least": 0.0}, "least: must be at least"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LogMel(**options)


def test_a_data_set_of_another_rate_is_refused():
    bats = Dataset(name="bats", classes=("a", "b"), signal="audio", rate_hz=96_000, window_s=10.0, context_s=10.0)
    assert "rate_hz" in str(LogMel().fault(bats))
    assert LogMel(rate_hz=96_000).fault(bats) is None


def test_files_of_another_rate_are_resampled_for_the_panels(tmp_path, rng):
    soundfile.write(tmp_path / "a.wav", calls(rng, 24_000, 1.0), 24_000)
    recording = read_audio(tmp_path / "a.wav", 48_000)
    drawn = LogMel(window_s=1.0).draw(None, AudioWindow(recording=recording, start=0, num_samples=48_000))
    assert drawn.shape == (1, 128, 94)
