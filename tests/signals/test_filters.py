"""Filters against scipy's own, and against what they should do to tones."""

import numpy as np
import pytest
from scipy import signal

from hms_dist.signals.filters import FilterChain, apply, sections_of

TIME_S = np.arange(10_000) / 200


@pytest.mark.parametrize("num_samples", [1, 2, 40, 63, 64, 65, 3000])
def test_equals_scipy(rng: np.random.Generator, num_samples: int) -> None:
    signals = rng.normal(0, 100, (5, num_samples)).astype(np.float32)
    sections = np.concatenate((
        signal.butter(5, (59, 61), "bandstop", fs=200, output="sos"),
        signal.butter(5, (1, 70), "bandpass", fs=200, output="sos"),
    ))  # fmt: skip
    exact = signals.astype(np.float64)
    causal = apply(FilterChain(zero_phase=False), signals)
    assert causal.dtype == np.float64
    np.testing.assert_allclose(causal, signal.sosfilt(sections, exact), atol=1e-9)
    padding = min(63, num_samples - 1)
    expected = signal.sosfiltfilt(sections, exact, padlen=padding)
    np.testing.assert_allclose(apply(FilterChain(), signals), expected, atol=1e-9)


@pytest.mark.parametrize("num_signals", [1, 7, 8, 9, 21])
def test_a_signal_is_filtered_alike_alone_and_among_others(num_signals: int, rng: np.random.Generator) -> None:
    signals = rng.normal(0, 100, (num_signals, 333))
    alone = np.concatenate([apply(FilterChain(), one[None]) for one in signals])
    np.testing.assert_array_equal(apply(FilterChain(), signals), alone)


def test_equals_the_published_transfer_functions(rng: np.random.Generator) -> None:
    """The 16th place's two filters in (b, a) form; that form is itself good to about 1e-6."""
    signals = rng.normal(0, 50, (3, 4000))
    expected = signals
    for band, kind in (((59, 61), "bandstop"), ((1, 70), "bandpass")):
        expected = signal.lfilter(*signal.butter(5, band, kind, fs=200), expected)
    np.testing.assert_allclose(apply(FilterChain(zero_phase=False), signals), expected, atol=1e-4)


def test_mains_hum_vanishes_and_alpha_stays_where_it_is() -> None:
    hum, alpha = np.sin(2 * np.pi * 60 * TIME_S), np.sin(2 * np.pi * 10 * TIME_S + 0.3)
    drift = 500 * np.sin(2 * np.pi * 0.05 * TIME_S)
    found = apply(FilterChain(), np.stack((hum, alpha, alpha + hum + drift)))[:, 1000:-1000]
    assert np.abs(found[0]).max() < 1e-3
    np.testing.assert_allclose(found[1], alpha[1000:-1000], atol=1e-3)
    np.testing.assert_allclose(found[2], alpha[1000:-1000], atol=1e-2)
    delta = np.sin(2 * np.pi * 2 * TIME_S)[None]  # the causal filter shifts slow waves most
    assert np.abs(apply(FilterChain(), delta) - delta)[0, 1000:-1000].max() < 1e-2
    assert np.abs(apply(FilterChain(zero_phase=False), delta) - delta)[0, 1000:-1000].max() > 0.5


@pytest.mark.parametrize("removed", [(), (50,), (60,), (50, 60)])
@pytest.mark.parametrize("zero_phase", [False, True])
def test_the_hum_of_any_country_can_be_removed(removed: tuple[int, ...], zero_phase: bool) -> None:
    """And nothing else: 10 Hz and the other country's hum keep their amplitude."""
    tones = np.sin(2 * np.pi * np.array([[10], [50], [60]]) * TIME_S)
    stops = tuple((hz - 1.0, hz + 1.0) for hz in removed)
    chain = FilterChain(band_stops_hz=stops, band_pass_hz=None, zero_phase=zero_phase)
    found = apply(chain, tones)[:, 3000:-3000].std(axis=1) * np.sqrt(2)
    np.testing.assert_allclose(found, [1, 50 not in removed, 60 not in removed], atol=5e-3)
    assert sections_of(chain).shape == (5 * len(removed), 6)


def test_zero_phase_is_symmetric_in_time() -> None:
    spike = np.zeros((1, 4001))
    spike[0, 2000] = 100
    found = apply(FilterChain(), spike)
    np.testing.assert_allclose(found, found[:, ::-1], atol=1e-6)
    assert found.argmax() == 2000


def test_each_signal_is_filtered_alone_and_gaps_count_as_zero(rng: np.random.Generator) -> None:
    signals = rng.normal(size=(4, 2000))
    signals[0, 300:400] = np.nan
    signals[1, 5] = np.inf
    filled = np.where(np.isfinite(signals), signals, 0)
    for chain in (FilterChain(), FilterChain(zero_phase=False)):
        found = apply(chain, signals)
        assert np.isfinite(found).all()
        for row, alone in zip(found, filled, strict=True):
            np.testing.assert_array_equal(row, apply(chain, alone[None])[0])


def test_no_band_is_no_filter(rng: np.random.Generator) -> None:
    signals = rng.normal(size=(2, 100))
    nothing = FilterChain(band_stops_hz=(), band_pass_hz=None)
    np.testing.assert_array_equal(apply(nothing, signals), signals)
    assert sections_of(nothing).shape == (0, 6)
    assert sections_of(FilterChain(band_pass_hz=None)).shape == (5, 6)
    assert apply(FilterChain(), np.zeros((2, 0))).shape == (2, 0)


@pytest.mark.parametrize("band", [(0.0, 70.0), (70.0, 1.0), (1.0, 100.0)])
def test_impossible_bands_are_refused(band: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"band_pass_hz: expected 0 < low < high < 100 Hz, found"):
        FilterChain(band_pass_hz=band)
    with pytest.raises(ValueError, match=r"band_stops_hz: expected 0 < low < high < 100 Hz, found"):
        FilterChain(band_stops_hz=((49.0, 51.0), band))


@pytest.mark.parametrize("order", [0, 11])
def test_impossible_orders_are_refused(order: int) -> None:
    with pytest.raises(ValueError, match=f"order: expected 1 to 10, found {order}"):
        FilterChain(order=order)
