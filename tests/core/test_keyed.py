"""Keyed draws: pure, uniform, and different for every key."""

import numpy as np
from scipy import stats

from hms_dist.core.keyed import keyed_hash, keyed_uniform


def test_same_keys_same_draws_in_any_company():
    rows = np.arange(1000)
    together = keyed_uniform(5, 2, rows)
    assert (together[::7] == keyed_uniform(5, 2, rows[::7])).all()
    assert together[41] == keyed_uniform(5, 2, 41)


def test_draws_are_uniform_and_streams_independent():
    rows = np.arange(20000)
    first, second = keyed_uniform(0, 1, rows), keyed_uniform(0, 2, rows)
    assert first.min() >= 0
    assert first.max() < 1
    assert stats.kstest(first, "uniform").pvalue > 1e-4
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 0.03


def test_order_of_keys_matters_and_hashes_do_not_collide():
    assert keyed_hash(1, 2) != keyed_hash(2, 1)
    assert len(np.unique(keyed_hash(0, np.arange(200000)))) == 200000


def test_integers_and_arrays_of_one_hash_alike(rng):
    """The hash of leading integers is cached."""
    keys = [*rng.integers(-(2**62), 2**62, 5).tolist(), 0, -1, True, 2**63 - 1, -(2**63)]
    expected = keyed_hash(*(np.array([key]) for key in keys))
    assert keyed_hash(*keys) == expected
    for number in range(len(keys)):
        mixed = [*keys[:number], np.array(keys[number]), *keys[number + 1 :]]
        assert keyed_hash(*mixed) == expected
        assert keyed_hash(*keys[: number + 1], np.arange(3))[2] == keyed_hash(*keys[: number + 1], 2)
