"""The textbook features of each pattern, found again in what is rendered."""

import numpy as np
import pytest
from scipy.signal import find_peaks, hilbert, welch

from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.pattern_draws import draw_features, draw_place, draw_run
from hms_dist.recordings.simulator.patterns import render, strength_at

RATE_HZ = 200
TIME_S = np.arange(100 * RATE_HZ) / RATE_HZ
DRAWS = range(8)


def drawn(rng, name):
    """Place, run from 10 to 90 s, and its bipolar picture [4, 4, samples] at scale 1."""
    place = draw_place(rng)
    run = draw_run(rng, draw_features(rng, name, place), (10.0, 90.0), 5.0)
    return place, run, head.bipolar(render(run, TIME_S, 1.0))


def side_powers(bipolar):
    """Mean square over the left and over the right chains."""
    return (bipolar[[0, 2]] ** 2).mean(), (bipolar[[1, 3]] ** 2).mean()


def strongest(bipolar):
    """The derivation [samples] that shows most."""
    flat = bipolar.reshape(16, -1)
    return flat[flat.std(axis=1).argmax()]


def peak_hz(signal):
    frequencies, power = welch(signal, RATE_HZ, nperseg=min(len(signal), 8 * RATE_HZ))
    return frequencies[power.argmax()]


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", ["lpd", "lrda"])
def test_lateralised_patterns_are_on_their_side(rng, name, draw):
    place, _, bipolar = drawn(rng, name)
    left, right = side_powers(bipolar)
    assert (left if place.side < 0 else right) > 4 * (right if place.side < 0 else left)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("name", ["gpd", "grda"])
def test_generalised_patterns_are_on_both_sides_at_once(rng, name, draw):
    _, _, bipolar = drawn(rng, name)
    left, right = side_powers(bipolar)
    assert 0.5 < left / right < 2
    for ours, theirs in ((0, 1), (2, 3)):
        assert np.corrcoef(bipolar[ours].ravel(), bipolar[theirs].ravel())[0, 1] > 0.95


@pytest.mark.parametrize("draw", DRAWS)
def test_generalised_rhythm_is_frontally_predominant(rng, draw):
    _, _, bipolar = drawn(rng, "grda")
    assert (bipolar[:, :2] ** 2).mean() > 2 * (bipolar[:, 2:] ** 2).mean()


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("name", "low_hz", "high_hz"), [("lrda", 0.9, 2.8), ("grda", 1.1, 3.0)])
def test_rhythmic_delta_has_most_of_its_power_about_one_delta_frequency(rng, name, low_hz, high_hz, draw):
    _, run, bipolar = drawn(rng, name)
    signal = strongest(bipolar)[20 * RATE_HZ : 80 * RATE_HZ]
    rate_hz = run.features.rates_hz[0]
    assert low_hz < peak_hz(signal) < high_hz
    frequencies, power = welch(signal, RATE_HZ, nperseg=8 * RATE_HZ)
    assert power[np.abs(frequencies - rate_hz) < 0.4 * rate_hz].sum() > 0.75 * power.sum()


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("name", "low_hz", "high_hz"), [("lpd", 0.65, 1.6), ("gpd", 0.7, 1.95)])
def test_periodic_discharges_are_sharp_and_come_about_once_a_second(rng, name, low_hz, high_hz, draw):
    _, _, bipolar = drawn(rng, name)
    signal = strongest(bipolar)[20 * RATE_HZ : 80 * RATE_HZ]
    signal = signal * np.sign(signal[np.abs(signal).argmax()])
    peaks, features = find_peaks(signal, height=0.3 * signal.max(), distance=0.3 * RATE_HZ, width=1, rel_height=0.5)
    assert low_hz < 1 / np.median(np.diff(peaks) / RATE_HZ) < high_hz
    assert np.median(features["widths"]) / RATE_HZ < 0.15


@pytest.mark.parametrize("draw", DRAWS)
def test_seizure_grows_and_its_frequency_evolves(rng, draw):
    _, run, bipolar = drawn(rng, "seizure")
    signal = strongest(bipolar)
    first, last = run.features.rates_hz
    early, late = signal[18 * RATE_HZ : 26 * RATE_HZ], signal[78 * RATE_HZ : 86 * RATE_HZ]
    assert peak_hz(early) == pytest.approx(first + (last - first) * 0.15, rel=0.2)
    assert peak_hz(late) == pytest.approx(first + (last - first) * 0.9, rel=0.2)
    envelope = np.abs(hilbert(signal))
    assert envelope[10 * RATE_HZ : 14 * RATE_HZ].mean() < 0.6 * envelope[30 * RATE_HZ : 60 * RATE_HZ].mean()


def test_focal_seizures_spread_to_the_other_side(rng):
    for _ in range(20):
        place, run, bipolar = drawn(rng, "seizure")
        if run.features.sources[1].joins_s == 0:
            continue
        other = bipolar[[1, 3] if place.side < 0 else [0, 2]]
        joined = int((10 + run.features.sources[2].joins_s) * RATE_HZ)
        assert (other[:, :, joined + 5 * RATE_HZ : 80 * RATE_HZ] ** 2).mean() > 2 * (other[:, :, :joined] ** 2).mean()


def test_two_of_three_seizures_are_focal(rng):
    features = [draw_features(rng, "seizure", draw_place(rng)) for _ in range(1000)]
    assert np.mean([each.sources[1].joins_s > 0 for each in features]) == pytest.approx(0.67, abs=0.09)


@pytest.mark.parametrize("name", ["seizure", "lpd", "gpd", "lrda", "grda"])
def test_peak_in_the_largest_derivation_is_near_the_strength(rng, name):
    peaks = []
    for _ in DRAWS:
        _, run, bipolar = drawn(rng, name)
        peaks.append(np.quantile(np.abs(strongest(bipolar)), 0.995) / (run.strength * run.features.gain))
    assert 0.7 < np.median(peaks) < 2.4


@pytest.mark.parametrize("name", ["seizure", "lpd", "gpd", "lrda", "grda"])
def test_same_pattern_at_any_rate_and_nothing_outside_its_run(rng, name):
    _, run, _ = drawn(rng, name)
    fine, coarse = render(run, TIME_S, 7.0), render(run, TIME_S[::4], 7.0)
    np.testing.assert_allclose(fine[:, ::4], coarse, atol=1e-9)
    outside = (TIME_S < 10) | (TIME_S >= 90)
    assert not fine[:, outside].any()
    assert not strength_at(run, TIME_S)[outside].any()
    assert strength_at(run, TIME_S)[50 * RATE_HZ] > 2
