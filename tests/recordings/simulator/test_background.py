"""The background's spectrum, its alpha and its levels."""

import copy
import dataclasses

import numpy as np
import pytest
from scipy.signal import welch

from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.background import Background, draw_background, draw_levels, render

RATE_HZ = 200
TIME_S = np.arange(120 * RATE_HZ) / RATE_HZ


def background(**changes) -> Background:
    quiet = Background(
        power_1hz=30.0, exponent=2.0, alpha_hz=10.0, alpha_uv=0.0, slow_uv=0.0, slow_field=np.zeros(19),
        common_power_1hz=0.0, level_swing=0.1, alpha_swing=0.1,
    )  # fmt: skip
    return dataclasses.replace(quiet, **changes)


def spectrum(signals):
    frequencies, power = welch(signals, RATE_HZ, nperseg=4 * RATE_HZ)
    return frequencies, power


def test_bipolar_spectrum_falls_as_configured(rng):
    signals = render(background(), np.ones((2, 20)), rng, TIME_S, RATE_HZ)
    frequencies, power = spectrum(head.bipolar(signals))
    seen = (frequencies >= 2) & (frequencies <= 30)
    slope, level = np.polyfit(np.log(frequencies[seen]), np.log(power.mean(axis=(0, 1))[seen]), 1)
    assert slope == pytest.approx(-2, abs=0.15)
    assert np.exp(level) == pytest.approx(30, rel=0.25)


def test_scale_is_the_rms_between_1_and_20_hz(rng):
    quiet = background()
    signals = render(quiet, np.ones((2, 20)), rng, TIME_S, RATE_HZ)
    frequencies, power = spectrum(head.bipolar(signals))
    band = (frequencies >= 1) & (frequencies <= 20)
    rms = np.sqrt(power.mean(axis=(0, 1))[band].sum() * (frequencies[1] - frequencies[0]))
    assert quiet.scale_uv == pytest.approx(rms, rel=0.15)


def test_alpha_is_posterior_and_at_its_frequency(rng):
    signals = render(background(alpha_uv=15.0), np.ones((2, 20)), rng, TIME_S, RATE_HZ)
    frequencies, power = spectrum(signals)
    band = (frequencies > 8.5) & (frequencies < 11.5)
    alpha = dict(zip(head.SCALP, power[:, band].sum(axis=1), strict=True))
    assert min(alpha["O1"], alpha["O2"]) > 20 * max(alpha["Fp1"], alpha["Fp2"])
    occipital = power[head.SCALP.index("O1")]
    assert frequencies[band][occipital[band].argmax()] == pytest.approx(10, abs=1)


def test_reference_is_common_and_leaves_differences_alone(rng):
    levels, again = np.ones((2, 20)), copy.deepcopy(rng)
    own = render(background(), levels, rng, TIME_S, RATE_HZ)
    both = render(background(common_power_1hz=50.0), levels, again, TIME_S, RATE_HZ)
    np.testing.assert_allclose(head.bipolar(own), head.bipolar(both), atol=1e-9)
    assert both.std() > 1.1 * own.std()


def test_draws_stay_plausible(rng):
    for _ in range(50):
        drawn = draw_background(rng)
        assert 2.4 < drawn.scale_uv < 15  # what the limits of power and exponent leave
        assert 8 <= drawn.alpha_hz <= 11
        levels = draw_levels(drawn, rng, 900)
        assert levels.shape[1] * 15 > 900
        assert levels.min() > 0
        assert np.median(levels[0]) == pytest.approx(1, rel=0.4)
