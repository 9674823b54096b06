"""Coloured noise against Welch's estimate, wave trains against a plain sum."""

import numpy as np
import pytest
from scipy.signal import welch

from hms_dist.recordings.simulator.waves import bumps, coloured_noise, narrow_band, one_over_f, ramp, train


def test_noise_has_the_density_asked_for(rng):
    density = one_over_f(30.0, 2.0)
    noise = coloured_noise(rng, density, num_channels=8, num_samples=40_001, rate_hz=200)
    assert noise.shape == (8, 40_001)
    frequencies, power = welch(noise, 200, nperseg=2000)
    seen = (frequencies > 1) & (frequencies < 80)
    ratio = power.mean(axis=0)[seen] / density(frequencies[seen])
    assert np.abs(np.log(ratio)).mean() < 0.1


def test_noise_channels_are_independent(rng):
    noise = coloured_noise(rng, np.ones_like, num_channels=3, num_samples=20_000, rate_hz=50)
    assert np.abs(np.corrcoef(noise) - np.eye(3)).max() < 0.05


def test_narrow_band_has_its_power_and_its_frequency(rng):
    density = narrow_band(7.0, 10.0, 0.5)
    noise = coloured_noise(rng, density, num_channels=20, num_samples=20_000, rate_hz=200)
    assert noise.std() == pytest.approx(7, rel=0.05)
    frequencies, power = welch(noise, 200, nperseg=2000)
    assert frequencies[power.mean(axis=0).argmax()] == pytest.approx(10, abs=0.5)


def test_train_of_waves_apart_is_their_sum(rng):
    at_s = np.cumsum(rng.uniform(1.0, 2.0, 12))
    scales = rng.uniform(0.5, 2, 12)
    time_s = np.arange(0, 25, 0.01)

    def wave(since_s):
        return bumps(since_s, (1.0, 0.05, 0.03), (-0.5, 0.2, 0.05))

    expected = sum(scale * wave(time_s - moment) for moment, scale in zip(at_s, scales, strict=True))
    np.testing.assert_allclose(train(time_s, at_s, scales, wave, 0.2), expected, atol=1e-6)


def test_train_without_moments_is_silent():
    assert not train(np.arange(5.0), np.empty(0), np.empty(0), np.cos, 0.1).any()


def test_ramp_is_zero_outside_one_inside_and_never_jumps():
    time_s = np.arange(0, 40, 0.01)
    envelope = ramp(time_s, 10, 30, 4, 2)
    assert not envelope[(time_s <= 10) | (time_s >= 30)].any()
    assert np.allclose(envelope[(time_s > 14.01) & (time_s < 27.99)], 1)
    assert np.abs(np.diff(envelope)).max() < 0.02
