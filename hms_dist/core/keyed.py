"""Keyed random numbers: pure functions of integer keys, independent of time, thread and process."""

from functools import lru_cache, reduce
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]

_STEP, _FIRST, _SECOND = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
"""Constants of splitmix64: its increment, and the factors of its finaliser."""
_SHIFTS = np.array([30, 27, 31], np.uint64)


def keyed_hash(*keys: ArrayLike) -> Words:
    """Hash integers to 64 bits with chained splitmix64 finalisers (Steele 2014): uint64 [the keys' broadcast shape].

    The hash of leading Python integers is cached, because NumPy spends more time per call than on a small array.
    """
    whole = tuple(takewhile(lambda key: isinstance(key, int), keys))
    with np.errstate(over="ignore"):
        return np.asarray(reduce(_extended, keys[len(whole) :], _hash_of(whole)), np.uint64)


def keyed_uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Draw uniformly from 0 to below 1, float64, shape and keys as `keyed_hash`."""
    return (keyed_hash(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


@lru_cache(maxsize=1024)
def _hash_of(keys: tuple[int, ...]) -> Any:
    return _extended(_hash_of(keys[:-1]), keys[-1]) if keys else np.uint64(0)


def _extended(state: Any, key: ArrayLike) -> Any:
    """Add a key to a hash."""
    return _mix((state ^ np.asarray(key).astype(np.int64).view(np.uint64)) + _STEP)


def _mix(words: Any) -> Any:
    first, second, third = _SHIFTS
    words = (words ^ (words >> first)) * _FIRST
    words = (words ^ (words >> second)) * _SECOND
    return words ^ (words >> third)


def check_seed(name: str, seed: int) -> None:
    """Raise ValueError for seeds outside 0..2^32-1, which frameworks silently truncate."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name}: expected 0 to {2**32 - 1}, found {seed}")
