"""The PCEN panel against librosa's mel spectrogram and its PCEN, and what it does to backgrounds and onsets."""

import librosa
import numpy as np
import pytest

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.pcen import Pcen
from hms_dist.signals.energy import smoothing_weight

FRAMES = {"n_fft": 1024, "win_length": 128, "hop_length": 39}
TIME_S = np.arange(10_000) / 200


def oracle(panel: Pcen, chain_signals: list[list[np.ndarray]]) -> np.ndarray:
    """Mean of librosa's PCEN over each chain's differences: [4, 128, 256]."""
    num_start = round(panel.time_constant_frames) if panel.start == "mean" else 1
    chains = []
    for signals in chain_signals:
        total = 0.0
        for signal in signals:
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
                zi=(1 - smoothing_weight(panel.time_constant_frames))
                * energy[:, :num_start].mean(axis=1, keepdims=True),
            )
        chains.append(total[:, :256] / 4)
    return np.stack(chains)


@pytest.mark.parametrize(
    "panel",
    [Pcen(), Pcen(start="mean"), Pcen(gain=1.0, bias=1.0, power=0.25, time_constant_s=1.0, epsilon=1.0)],
    ids=["default", "mean", "other"],
)
def test_equals_librosa(draw, noise, chain_signals, panel: Pcen) -> None:
    eeg = noise()
    drawn = draw(panel, eeg)
    highest = panel.spec.value_range[1]
    expected = oracle(panel, chain_signals(eeg)).clip(0, highest) * 255 / highest
    assert np.abs(drawn - expected).max() <= 0.5 + 0.05


def test_a_steady_background_fades_whatever_its_size(draw, rng: np.random.Generator) -> None:
    quiet = rng.normal(0, 1, (10_000, 20))
    panel = Pcen(gain=1.0, start="mean")
    difference = draw(panel, 100 * quiet).astype(int) - draw(panel, quiet)
    assert np.abs(difference).max() <= 2


@pytest.mark.parametrize(("start", "skipped_s"), [("mean", 0), ("first_frame", 7.5)])
def test_an_onset_at_25_s_outshines_the_same_rhythm_later(
    draw, rng: np.random.Generator, start: str, skipped_s: float
) -> None:
    """Started from a single frame, M needs its time constant to adapt if that frame was quiet."""
    eeg = rng.normal(0, 1, (10_000, 20))
    eeg[5000:, CHANNELS.index("T3")] += 100 * np.sin(2 * np.pi * 10 * TIME_S[5000:])
    panel, skipped = Pcen(start=start), round(skipped_s * 200 / 39)
    row = np.abs(np.array(panel.spec.rows_hz) - 10).argmin()
    brightness = draw(panel, eeg)[0, row].astype(int)
    onset = brightness[skipped:].argmax() + skipped
    assert abs(onset * 39 - 5000) < 200
    assert brightness[onset] > 2 * brightness[230:250].mean()
    assert brightness[skipped:120].mean() < brightness[onset] / 3
    assert draw(panel, eeg)[2, row, skipped:].mean() < brightness[onset] / 3  # the right side has no part in it


def test_steady_noise_is_no_brighter_at_its_start_than_later(draw, rng: np.random.Generator) -> None:
    drawn = draw(Pcen(start="mean"), rng.normal(0, 20, (10_000, 20))).astype(int)
    assert (drawn.argmax(axis=2) < 38).mean() < 0.3  # 0.15 of the frames
    assert drawn[..., :10].mean() < 1.3 * drawn[..., 38:].mean()
    from_the_first_frame = draw(Pcen(), rng.normal(0, 20, (10_000, 20))).astype(int)
    assert (from_the_first_frame.argmax(axis=2) < 38).mean() > 0.5


def test_a_row_sees_its_own_50_seconds(draw, noise) -> None:
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
