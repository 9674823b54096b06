"""The rows of a batch and the groups within which they are mixed; a group has consecutive places in its step."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class GroupedRows:
    """Rows of one batch: the rank's own rows, then other rows of their groups, with which they are mixed."""

    rows: Ints
    """Row numbers in the shard set [n]."""
    places: Ints
    """Places in the step [n], 0 to B - 1. Group g has places g m to (g + 1) m - 1."""
    group_size: int
    """Number of rows of a whole group, m."""
    num_own: int
    """Number of the rank's own rows, which come first."""

    def others(self, draws: NDArray[np.float64]) -> Ints:
        """Choose another row of each row's group by uniform `draws` [n] in [0, 1): its place; the row's own if m is
        1."""
        size = self.group_size
        further = 1 + np.floor(draws * (size - 1)).astype(np.int64)
        return self.places // size * size + (self.places % size + further) % size

    def positions(self, places: Ints) -> Ints:
        """Return the positions in the batch of the rows at `places` [n]; -1 for rows that are not in it."""
        order = np.argsort(self.places)
        found = order[np.minimum(np.searchsorted(self.places[order], places), len(order) - 1)]
        return np.where(self.places[found] == places, found, -1)


def one_group(rows: Ints) -> GroupedRows:
    """Create a batch of `rows` [m] that are one group."""
    return GroupedRows(rows, np.arange(len(rows)), len(rows), len(rows))


def closure(own: Ints, mixes: Sequence[tuple[NDArray[np.bool_], Ints]]) -> Ints:
    """Return the places [n] of other rows on which the rows at places `own` [m] depend, in ascending order.

    `mixes`: in the order in which they are applied, whether the row at each place of the step is mixed, and the place
    of its partner; both indexed by place [B]. A partner is the result of earlier mixes, so it may depend on further
    rows.
    """
    needed = np.zeros(len(mixes[0][0]) if mixes else int(own.max(initial=-1)) + 1, bool)
    needed[own] = True
    for is_mixed, partner in reversed(mixes):
        needed[partner[needed & is_mixed]] = True
    needed[own] = False
    return np.flatnonzero(needed)
