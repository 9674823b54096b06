"""Keyed random draws of rows: those of a row depend on no other row, rank or pass."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.keyed import keyed_hash, keyed_uniform

Floats = NDArray[np.float64]

_AUGMENT, _SIGNALS = 103, 105
"""Streams of keyed draws: augmentations of composed images, and of the signals that they are drawn from."""


@dataclass(frozen=True, eq=False)
class RowDraws:
    """Draws for `rows` [m] (int64, rows of the shard set), keyed by integers that identify their use."""

    rows: NDArray[np.int64]
    keys: tuple[int, ...]

    def uniform(self, count: int) -> Floats:
        """Draw `count` uniform numbers in [0, 1) for each row: [m, count]. A larger count begins with the same
        draws."""
        return keyed_uniform(*self.keys, self.rows[:, None], np.arange(count))

    def words(self, count: int) -> Floats:
        """Draw `count` integers for each row, uniform in -2^31 to 2^31 - 1: float64 [m, count]; independent of
        `uniform`."""
        hashed = keyed_hash(*self.keys, self.rows[:, None], -1 - np.arange(count))
        return (hashed >> np.uint64(32)).astype(np.uint32).view(np.int32).astype(np.float64)

    def within(self, place: int) -> "RowDraws":
        """Return independent draws of the same rows, for part `place` of an augmentation."""
        return RowDraws(self.rows, (*self.keys, place))

    def only(self, chosen: NDArray[np.bool_]) -> "RowDraws":
        """Return the draws of the rows where `chosen` [m] is true."""
        return RowDraws(self.rows[chosen], self.keys)


def draws_of(rows: NDArray[np.int64], *, seed: int, epoch: int, signals: bool = False) -> RowDraws:
    """Create the draws of `rows` [m] in an epoch, for images or for signals."""
    return RowDraws(rows, (seed, _SIGNALS if signals else _AUGMENT, epoch))


def between(draws: Floats, limits: tuple[float, float]) -> Floats:
    """Scale uniform draws from [0, 1) to `limits` (low, high); same shape."""
    low, high = limits
    return low + (high - low) * draws


def whole_below(draws: Floats, ends: NDArray[Any] | int) -> Floats:
    """Convert uniform draws in [0, 1) to uniform integers 0 to `ends` - 1: float64, same shape.

    `ends`: whole numbers in any dtype.
    """
    whole: Floats = np.floor(draws * ends)
    return whole
