"""Keyed draws of the rows of a group: the same for a row wherever, whenever and beside whichever rows it is drawn."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.keyed import keyed_hash, keyed_uniform

Floats = NDArray[np.float64]

_AUGMENT = 103
"""Stream of keyed draws: everything that is done to a row's finished picture."""


@dataclass(frozen=True, eq=False)
class RowDraws:
    """Draws for `rows` [m] (int64, rows of the shard set), keyed by whole numbers that say what they are for."""

    rows: NDArray[np.int64]
    keys: tuple[int, ...]

    def uniform(self, count: int) -> Floats:
        """`count` uniform draws in [0, 1) a row: [m, count]. More of them begin with the same ones."""
        return keyed_uniform(*self.keys, self.rows[:, None], np.arange(count))

    def words(self, count: int) -> Floats:
        """`count` whole numbers a row, uniform in -2^31 to 2^31 - 1, independent of `uniform`: float64 [m, count]."""
        hashed = keyed_hash(*self.keys, self.rows[:, None], -1 - np.arange(count))
        return (hashed >> np.uint64(32)).astype(np.uint32).view(np.int32).astype(np.float64)

    def within(self, place: int) -> "RowDraws":
        """Independent draws of the same rows, for the part number `place`."""
        return replace(self, keys=(*self.keys, place))

    def only(self, chosen: NDArray[np.bool_]) -> "RowDraws":
        """The draws of the rows where `chosen` [m] is true."""
        return replace(self, rows=self.rows[chosen])


def draws_of(rows: NDArray[np.int64], *, seed: int, epoch: int) -> RowDraws:
    """The draws of an epoch's rows."""
    return RowDraws(rows, (seed, _AUGMENT, epoch))


def between(draws: Floats, limits: tuple[float, float]) -> Floats:
    """Uniform draws in [0, 1) stretched to `limits` (low, high)."""
    low, high = limits
    return low + (high - low) * draws


def whole_below(draws: Floats, ends: NDArray[Any] | int) -> Floats:
    """Uniform draws in [0, 1) to whole numbers 0 to `ends` - 1, each as likely as another."""
    whole: Floats = np.floor(draws * ends)
    return whole
