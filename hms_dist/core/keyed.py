"""Keyed random numbers: pure functions of integer keys, independent of time, thread and process."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]


def keyed_hash(*keys: ArrayLike) -> Words:
    """Hash integers to 64 bits with chained splitmix64 finalisers (Steele 2014): uint64 [the keys' broadcast shape]."""
    state: Words = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for key in keys:
            words = np.asarray(key).astype(np.int64).view(np.uint64)
            state = _mix((state ^ words) + np.uint64(0x9E3779B97F4A7C15))
    return np.asarray(state, np.uint64)


def keyed_uniform(*keys: ArrayLike) -> NDArray[np.float64]:
    """Draw uniformly from 0 to below 1, float64, shape and keys as `keyed_hash`."""
    return (keyed_hash(*keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def check_seed(name: str, seed: int) -> None:
    """Raise ValueError for seeds outside 0..2^32-1, which frameworks silently truncate."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name}: expected 0 to {2**32 - 1}, found {seed}")
