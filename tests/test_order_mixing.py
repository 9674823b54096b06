"""Statistics of the locality bench against brute force and random draws."""

import importlib
from pathlib import Path

import numpy as np
import pytest

BENCHES = Path(__file__).parents[1] / "scripts/bench"


@pytest.fixture
def mixing(monkeypatch):
    """The module, next to the bench that uses it."""
    monkeypatch.syspath_prepend(BENCHES)
    return importlib.import_module("order_mixing")


def test_distinct_ids_are_counted_step_by_step(rng, mixing):
    ids = rng.integers(0, 30, 240)
    expected = np.mean([len(set(ids[first : first + 12])) for first in range(0, 240, 12)])
    assert mixing.distinct_per_step(ids, 12) == pytest.approx(expected, abs=1e-12)


def test_the_expected_number_is_that_of_many_shuffles(rng, mixing):
    ids = rng.choice(20, 200, p=rng.dirichlet(np.ones(20)))
    drawn = [len(set(rng.permutation(ids)[:16])) for _ in range(4000)]
    error = np.std(drawn) / np.sqrt(4000)
    assert mixing.distinct_when_shuffled(ids, 16) == pytest.approx(np.mean(drawn), abs=6 * error)


def test_the_expected_number_at_its_ends(mixing):
    ids = np.repeat(np.arange(7), [1, 2, 3, 4, 5, 6, 7])
    assert mixing.distinct_when_shuffled(ids, 1) == pytest.approx(1, abs=1e-9)
    assert mixing.distinct_when_shuffled(ids, len(ids)) == pytest.approx(7, abs=1e-9)


def test_a_shuffle_has_no_design_effect_and_runs_of_a_class_have_one(rng, mixing):
    targets = rng.dirichlet(np.ones(6), 24_000)
    shuffled = mixing.design_effect(targets, 24)
    assert shuffled == pytest.approx(
        1, abs=0.15
    )  # 1,000 steps with 5 degrees of freedom: standard deviation about 0.03
    assert mixing.design_effect(np.repeat(targets[:6_000], 4, axis=0), 24) == pytest.approx(4, rel=0.2)
