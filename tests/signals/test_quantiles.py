"""Quantiles from counts against numpy's exact ones, to the stated bound."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.signals.quantiles import LEAST, MOST, RATIO, QuantileCounter


def counted(signals: np.ndarray, where: np.ndarray | None = None) -> QuantileCounter:
    counter = QuantileCounter(len(signals))
    counter.add(signals, np.ones(signals.shape, bool) if where is None else where)
    return counter


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_samples=st.integers(1, 3000),
    scale=st.sampled_from([0.0, 1e-4, 0.1, 40.0, 1e6]),
    shift=st.sampled_from([-2.0, 0.0, 2.0]),
    share=st.sampled_from([1e-6, 0.05, 0.25, 0.5, 0.95, 1.0]),
)
def test_equals_numpy_to_half_a_bin(seed: int, num_samples: int, scale: float, shift: float, share: float) -> None:
    signals = scale * (np.random.default_rng(seed).normal(0, 1, (3, num_samples)) + shift)
    exact = np.quantile(signals, share, axis=1, method="inverted_cdf")
    found = counted(signals).quantile(share)
    np.testing.assert_allclose(found, exact, rtol=RATIO**0.5 - 1 + 1e-9, atol=LEAST)


def test_neither_order_nor_portions_matter(rng: np.random.Generator) -> None:
    signals, where = rng.laplace(0, 50, (4, 9000)), rng.random((4, 9000)) < 0.8
    portions = np.split(np.arange(9000), [100, 4000, 8999])
    forward, backward = QuantileCounter(4), QuantileCounter(4)
    for portion in portions:
        forward.add(signals[:, portion], where[:, portion])
    for portion in portions[::-1]:
        backward.add(signals[:, portion[::-1]], where[:, portion[::-1]])
    for counter in (forward, backward):
        np.testing.assert_array_equal(counter.totals(), where.sum(axis=1))
        for share in (0.05, 0.5, 0.95):
            np.testing.assert_array_equal(counter.quantile(share), counted(signals, where).quantile(share))


def test_ranks_at_whole_numbers() -> None:
    """0.05 of 20 is one value: the quantile is the least of them, not the second."""
    values = np.arange(1.0, 21.0)[None]
    assert counted(values).quantile(0.05) == pytest.approx(1, rel=1e-3)
    assert counted(values).quantile(0.95) == pytest.approx(19, rel=1e-3)
    assert counted(np.array([[3.0]])).quantile(0.05) == pytest.approx(3, rel=1e-3)


def test_extremes_and_nothing() -> None:
    values = np.array([[1e300, -1e300], [0.0, 0.0], [5.0, 5.0]])
    found = counted(values, np.array([[True, True], [True, True], [False, False]])).quantile(0.5)
    assert found[0] == pytest.approx(-MOST, rel=2e-3)
    assert found[1] == 0
    assert np.isnan(found[2])
