"""The PCEN panel against librosa's mel spectrogram and its PCEN, and what it does to backgrounds and onsets."""

import librosa
import numpy as np
import pytest

from hms_dist.config import from_dict
from hms_dist.errors import UserError
from hms_dist.images.panel import Window
from hms_dist.images.pcen import Pcen
from hms_dist.recordings.reader import CHANNELS, Recording
from hms_dist.signals.energy import smoothing_weight
from hms_dist.signals.montage import CHAINS

FRAMES = {"n_fft": 1024, "win_length": 128, "hop_length": 39}
TIME_S = np.arange(10_000) / 200


def draw(panel: Pcen, eeg: np.ndarray, start: int = 0) -> np.ndarray:
    recording = Recording(
        eeg_id=1,
        eeg=eeg.astype(np.float32),
        spectrogram_id=2,
        spectrogram=np.zeros((0, 4, 100), np.float32),
        spectrogram_time_s=np.zeros(0),
    )
    window = Window(recording=recording, start=start, spectrogram_offset_s=0.0)
    return panel.draw(panel.prepare(recording), window)


def noise(num_samples: int = 10_000) -> np.ndarray:
    """Noise with gaps: one dead electrode, one broken for a while."""
    rng = np.random.default_rng()
    eeg = np.cumsum(rng.normal(0, 3, (num_samples, 20)), axis=0) + rng.normal(0, 10, (num_samples, 20))
    eeg[:, CHANNELS.index("T5")] = np.nan
    eeg[2000:2500, CHANNELS.index("F4")] = np.nan
    return eeg.astype(np.float32)


def oracle(panel: Pcen, eeg: np.ndarray) -> np.ndarray:
    """Mean of librosa's PCEN over each chain's differences: [4, 128, 256]."""
    chains = []
    for pairs in CHAINS.values():
        total = 0.0
        for plus, minus in pairs:
            signal = eeg[:, CHANNELS.index(plus)].astype(np.float64) - eeg[:, CHANNELS.index(minus)]
            gap = np.isnan(signal)
            signal = np.where(gap, 0 if gap.all() else signal[~gap].mean(), signal)
            energy = librosa.feature.melspectrogram(
                y=signal, sr=200, n_mels=128, fmin=0, fmax=20, pad_mode="reflect", **FRAMES
            )
            total = total + librosa.pcen(
                energy,
                sr=200,
                hop_length=39,
                gain=panel.gain,
                bias=panel.bias,
                power=panel.power,
                time_constant=panel.time_constant_s,
                eps=panel.epsilon,
                zi=(1 - smoothing_weight(panel.time_constant_frames)) * energy[:, :1],  # a past like the first frame
            )
        chains.append(total[:, :256] / 4)
    return np.stack(chains)


@pytest.mark.parametrize(
    "panel", [Pcen(), Pcen(gain=1.0, bias=1.0, power=0.25, time_constant_s=1.0, epsilon=1.0)], ids=["default", "other"]
)
def test_equals_librosa(panel: Pcen) -> None:
    eeg = noise()
    drawn = draw(panel, eeg)
    assert (drawn.shape, drawn.dtype) == (panel.spec.shape, np.uint8)
    highest = panel.spec.value_range[1]
    expected = oracle(panel, eeg).clip(0, highest) * 255 / highest
    assert np.abs(drawn - expected).max() <= 0.5 + 0.05


def test_a_steady_background_fades_whatever_its_size() -> None:
    quiet, loud = (np.random.default_rng(3).normal(0, size, (10_000, 20)) for size in (1, 100))
    difference = draw(Pcen(gain=1.0), loud).astype(int) - draw(Pcen(gain=1.0), quiet)
    assert np.abs(difference).max() <= 2


def test_an_onset_at_25_s_outshines_the_same_rhythm_later() -> None:
    eeg = np.random.default_rng().normal(0, 1, (10_000, 20))
    eeg[5000:, CHANNELS.index("T3")] += 100 * np.sin(2 * np.pi * 10 * TIME_S[5000:])
    panel = Pcen()
    row = np.abs(np.array(panel.spec.rows_hz) - 10).argmin()
    brightness = draw(panel, eeg)[0, row].astype(int)
    assert abs(int(brightness.argmax()) * 39 - 5000) < 200
    assert brightness.max() > 2 * brightness[230:250].mean()
    assert brightness[:120].mean() < brightness.max() / 3
    assert draw(panel, eeg)[2, row].mean() < brightness.max() / 3  # the right side has no part in it


def test_a_row_sees_its_own_50_seconds() -> None:
    eeg = noise(14_000)
    np.testing.assert_array_equal(draw(Pcen(), eeg, 3000), draw(Pcen(), eeg[3000:13_000]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gain": 1.1}, "gain: must be from 0 to 1, found 1.1"),
        ({"power": 0.0}, "power: must be above 0 and at most 1, found 0.0"),
        ({"bias": 0.0}, "bias: must be above 0"),
        ({"time_constant_s": -1.0}, "time_constant_s: must be above 0"),
        ({"epsilon": 0.0}, "epsilon: must be above 0"),
    ],
)
def test_refused_options_are_named(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(Pcen, options)
