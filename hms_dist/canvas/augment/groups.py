"""The rows of a batch and the groups that they mix within: rows of one group have neighbouring places in their step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """Rows of one batch: the rank's own, then further ones of their groups that they are mixed with."""

    rows: Ints
    """Of the shard set [n]."""
    places: Ints
    """In the step [n], 0 to B - 1. Group g has the places g m to (g + 1) m - 1."""
    group_size: int
    """Rows of a whole group, m."""
    num_own: int
    """The first so many rows are the rank's own."""

    def others(self, draws: NDArray[np.float64]) -> Ints:
        """For each row the place of another one of its group, by uniform `draws` [n] in [0, 1); its own if m is 1."""
        size = self.group_size
        further = 1 + np.floor(draws * (size - 1)).astype(np.int64)
        return self.places // size * size + (self.places % size + further) % size

    def positions(self, places: Ints) -> Ints:
        """Position in the batch of rows at `places`; -1 for those that are not in it."""
        order = np.argsort(self.places)
        found = order[np.minimum(np.searchsorted(self.places[order], places), len(order) - 1)]
        return np.where(self.places[found] == places, found, -1)


def one_group(rows: Ints) -> GroupedRows:
    """Rows that are a group of their own."""
    return GroupedRows(rows, np.arange(len(rows)), len(rows), len(rows))


def closure(own: Ints, mixes: Sequence[tuple[NDArray[np.bool_], Ints]]) -> Ints:
    """Places that rows at places `own` depend on by `mixes`, without their own, rising.

    Each mix, in the order in which they are applied: whether each place of the step's groups is mixed, and with which
    place; both indexed by place. A partner takes part as the mixes before made it.
    """
    needed = np.zeros(len(mixes[0][0]) if mixes else int(own.max(initial=-1)) + 1, bool)
    needed[own] = True
    for is_mixed, partner in reversed(mixes):
        needed[partner[needed & is_mixed]] = True
    needed[own] = False
    return np.flatnonzero(needed)
