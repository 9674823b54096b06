"""Heart, eyes, mains, bad electrodes and interruptions, found again in the signals."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import find_peaks, welch

from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.artifacts import EKG, Artifacts, BadElectrode, Burst, add, draw_artifacts, inside
from hms_dist.recordings.simulator.artifacts import interrupt as interrupt_signals

RATE_HZ = 200
TIME_S = np.arange(60 * RATE_HZ) / RATE_HZ


def clean(**changes) -> Artifacts:
    none = Artifacts(
        blinks_s=np.empty(0), blink_uv=np.empty(0), beats_s=np.arange(0.5, 60, 0.8), ekg_uv=400.0,
        heart_gains=np.zeros(19), muscle=(), hum_uv=np.zeros(20), bad=(), gaps_s=np.empty((0, 2)),
        unplugged_s=np.empty((0, 2)),
    )  # fmt: skip
    return dataclasses.replace(none, **changes)


def rendered(rng: np.random.Generator, artifacts: Artifacts, before: np.ndarray | None = None) -> np.ndarray:
    signals = np.zeros((20, len(TIME_S))) if before is None else before.copy()
    add(artifacts, signals, rng, TIME_S, RATE_HZ)
    interrupt_signals(artifacts, signals, TIME_S)
    return signals


@pytest.mark.parametrize("number", range(5))
def test_ekg_shows_every_beat_of_a_human_heart(rng, number):
    artifacts = draw_artifacts(rng, 60)
    ekg = rendered(rng, clean(beats_s=artifacts.beats_s, ekg_uv=artifacts.ekg_uv))[EKG] * np.sign(artifacts.ekg_uv)
    peaks, _ = find_peaks(ekg, prominence=0.6 * abs(artifacts.ekg_uv))
    beats = artifacts.beats_s[artifacts.beats_s < 59.9]
    np.testing.assert_allclose(peaks[: len(beats)] / RATE_HZ, beats, atol=0.02)
    assert 50 < 60 / np.diff(beats).mean() < 110


def test_heart_is_faint_on_the_scalp(rng):
    for _ in range(10):
        artifacts = draw_artifacts(rng, 60)
        signals = rendered(rng, clean(heart_gains=artifacts.heart_gains))
        assert 0 < np.abs(signals[:EKG]).max() < 0.02 * np.abs(signals[EKG]).max()


def test_blinks_are_frontal(rng):
    signals = rendered(rng, clean(blinks_s=np.array([5.0, 9.0]), blink_uv=np.array([100.0, 120.0])))
    height = dict(zip(head.SCALP, signals[:EKG, 5 * RATE_HZ], strict=True))
    assert height["Fp1"] == pytest.approx(100, rel=0.15)
    assert height["F3"] < 0.5 * height["Fp1"]
    assert abs(height["C3"]) < 0.05 * height["Fp1"]
    assert np.abs(signals[:EKG, 20 * RATE_HZ :]).max() < 1e-6


def test_muscle_is_fast_and_only_in_its_burst(rng):
    gains = head.field(-1.0, 0.0, 25) * 20
    signals = rendered(rng, clean(muscle=(Burst(start_s=20.0, stop_s=40.0, gains_uv=gains),)))
    temple = signals[head.SCALP.index("T3")]
    assert temple[22 * RATE_HZ : 38 * RATE_HZ].std() == pytest.approx(20, rel=0.15)
    assert not temple[: 20 * RATE_HZ].any()
    frequencies, power = welch(temple[22 * RATE_HZ : 38 * RATE_HZ], RATE_HZ)
    assert power[frequencies > 15].sum() > 0.9 * power.sum()


def test_hum_is_at_60_hz(rng):
    signals = rendered(rng, clean(hum_uv=np.arange(1.0, 21.0)))
    frequencies, power = welch(signals[:EKG], RATE_HZ, nperseg=1000)
    assert (frequencies[power.argmax(axis=1)] == 60).all()
    np.testing.assert_allclose(signals[:EKG].std(axis=1), np.arange(1, 20) / np.sqrt(2), rtol=0.01)


def test_bad_electrodes_are_flat_drift_or_hum_and_leave_the_others_alone(rng):
    before = rng.normal(0, 20, (20, len(TIME_S)))
    kinds = ("flat", "drift", "mains")
    bad = tuple(BadElectrode(index=index, kind=kind, uv=100.0) for index, kind in enumerate(kinds))
    signals = rendered(rng, clean(bad=bad), before)
    assert not signals[0].any()
    added = signals[:EKG] - before[:EKG]
    frequencies, power = welch(added[1], RATE_HZ, nperseg=4000)
    assert power[frequencies < 1].sum() > 0.95 * power.sum()
    assert 40 < added[1].std() < 250
    assert added[2].std() == pytest.approx(100 / np.sqrt(2), rel=0.01)
    assert not added[3:].any()


def test_unplugged_is_exact_zero(rng):
    before = rng.normal(0, 20, (20, len(TIME_S)))
    signals = rendered(rng, clean(unplugged_s=np.array([[10.0, 12.5]])), before)
    off = inside(np.array([[10.0, 12.5]]), TIME_S)
    assert off.sum() == 2.5 * RATE_HZ
    assert not signals[:, off].any()
    assert signals[:EKG, ~off].all()


def test_draws_cover_every_artifact_and_stay_in_the_session(rng):
    drawn = [draw_artifacts(rng, 700) for _ in range(1000)]
    assert 0.3 < np.mean([len(each.gaps_s) > 0 for each in drawn]) < 0.5
    assert 0.1 < np.mean([len(each.unplugged_s) > 0 for each in drawn]) < 0.3
    assert 0.4 < np.mean([len(each.blinks_s) > 0 for each in drawn]) < 0.6
    assert {bad.kind for each in drawn for bad in each.bad} == {"flat", "drift", "mains"}
    spans = np.concatenate([np.concatenate([each.gaps_s, each.unplugged_s]) for each in drawn])
    assert spans.min() >= 0
    assert spans.max() <= 700
    assert (spans[:, 1] > spans[:, 0]).all()
    assert all(each.beats_s[-1] > 700 and (np.diff(each.beats_s) > 0.3).all() for each in drawn)
