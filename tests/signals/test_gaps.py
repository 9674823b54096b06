"""Filling gaps, by each policy, against numpy's own means and interpolation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.signals.gaps import fill_gaps


@pytest.fixture
def signals(rng: np.random.Generator) -> np.ndarray:
    """Two chains of three signals: gaps inside and at both ends, one whole, one that is nothing but a gap."""
    values = rng.normal(50, 20, (2, 3, 200))
    values[0, 0, 50:60] = np.nan
    values[0, 1, :7] = np.inf
    values[0, 2, -9:] = -np.inf
    values[1, 0] = np.nan
    values[1, 1, rng.random(200) < 0.5] = np.nan
    return values


def expected(signal: np.ndarray, policy: str) -> np.ndarray:
    valid = np.isfinite(signal)
    if not valid.any():
        return np.zeros_like(signal)
    places = np.arange(len(signal))
    instead = {
        "zero": np.zeros_like(signal),
        "mean": np.full_like(signal, signal[valid].mean()),
        "interpolate": np.interp(places, places[valid], signal[valid]),
    }
    return np.where(valid, signal, instead[policy])


@pytest.mark.parametrize("policy", ["zero", "mean", "interpolate"])
def test_each_signal_is_filled_from_its_own_samples(signals: np.ndarray, policy: str) -> None:
    before = signals.copy()
    found = fill_gaps(signals, policy)
    np.testing.assert_array_equal(signals, before)
    for place in np.ndindex(2, 3):
        np.testing.assert_allclose(found[place], expected(signals[place], policy), rtol=1e-12)


def test_a_ramp_with_a_gap_is_a_ramp_again() -> None:
    ramp = np.linspace(-3, 8, 100)
    broken = ramp.copy()
    broken[20:70] = np.nan
    np.testing.assert_allclose(fill_gaps(broken, "interpolate"), ramp)


def test_nothing_is_copied_where_nothing_is_missing() -> None:
    whole = np.ones((2, 10))
    assert fill_gaps(whole, "mean") is whole


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.01, 0.5, 0.99, 1.0]),
    scale=st.sampled_from([0.0, 1.0, 1e6, 1e38]),
    policy=st.sampled_from(["zero", "mean", "interpolate"]),
)
def test_filled_signals_stay_within_the_recorded_ones_or_zero(
    seed: int, share: float, scale: float, policy: str
) -> None:
    rng = np.random.default_rng(seed)
    signals = rng.uniform(-1, 1, (4, 300)) * scale
    signals[rng.random(signals.shape) < share] = rng.choice([np.nan, np.inf, -np.inf])
    found = fill_gaps(signals, policy)
    assert np.isfinite(found).all()
    assert np.abs(found).max() <= scale
