"""Energy normalisation against librosa at equal parameters."""

import librosa
import numpy as np
import pytest

from hms_dist.signals.energy import normalise_energy, smoothing_weight

AUDIO = {"gain": 0.98, "bias": 2.0, "power": 0.5, "epsilon": 1e-6}


@pytest.mark.parametrize("time_constant_frames", [0.5, 10.0, 38.5, 1000.0])
@pytest.mark.parametrize(
    "options", [AUDIO, AUDIO | {"gain": 1.0, "bias": 0.1}, AUDIO | {"gain": 0.3, "power": 0.25}, AUDIO | {"power": 1.0}]
)
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e9])
@pytest.mark.parametrize("start", ["first_frame", "mean"])
def test_equals_librosa_with_its_start(
    rng: np.random.Generator, time_constant_frames: float, options: dict, scale: float, start: str
) -> None:
    energy = np.exp(rng.normal(-3, 2, (20, 256))).clip(0, 1)
    num_start = max(round(time_constant_frames), 1) if start == "mean" else 1
    before = energy[:, :num_start].mean(axis=1, keepdims=True) * scale
    expected = librosa.pcen(
        energy * scale,
        sr=200,
        hop_length=40,
        time_constant=time_constant_frames / 5,
        gain=options["gain"],
        bias=options["bias"],
        power=options["power"],
        eps=options["epsilon"],
        zi=(1 - smoothing_weight(time_constant_frames)) * before,
    )
    found = normalise_energy(
        energy.astype(np.float32), scale=scale, time_constant_frames=time_constant_frames, start=start, **options
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.max() + 1e-6)


@pytest.mark.parametrize("start", ["first_frame", "mean"])
def test_a_steady_level_gives_a_steady_value(start: str) -> None:
    energy = np.full((3, 50), 0.25, np.float32)
    found = normalise_energy(energy, scale=1e6, time_constant_frames=20, start=start, **AUDIO)
    np.testing.assert_allclose(found, (2.5e5**0.02 + 2) ** 0.5 - 2**0.5, rtol=1e-4)


def test_an_onset_after_silence_is_as_high_as_it_gets() -> None:
    energy = np.zeros((1, 100), np.float32)
    energy[0, 50:] = 1
    found = normalise_energy(energy, scale=1.0, time_constant_frames=20, start="mean", **AUDIO)[0]
    onset = smoothing_weight(20) ** -0.98
    np.testing.assert_allclose(found[50], (onset + 2) ** 0.5 - 2**0.5, rtol=1e-3)
    assert (found[:50] == 0).all()
    assert (np.diff(found[50:]) < 0).all()


@pytest.mark.parametrize("scale", [1e-20, 1e76])
def test_any_scale_is_finite(rng: np.random.Generator, scale: float) -> None:
    energy = rng.random((5, 60), np.float32)
    energy[:2] = 0
    assert np.isfinite(normalise_energy(energy, scale=scale, time_constant_frames=38, start="mean", **AUDIO)).all()
