"""Replacement of damaged rows in training by other rows of their group."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.stream.read.batch import Request


class Replacements:
    """Chooses, logs and counts replacements of damaged rows, up to a limit.

    A damaged row is replaced by the next readable row of its group, cyclically, so the choice does not depend on ranks
    or passes. The replacement is used twice, with its own labels.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: largest number of replacements on this rank. Only the rank's own rows are counted, each time."""
        self.num_replaced = 0
        self._limit = limit

    def choose(self, request: Request, damaged: Mapping[int, UserError]) -> dict[int, int]:
        """Choose replacements: position of each damaged row in the request -> position of its replacement.

        Raises the UserError of a damaged row when no row of its group is readable, or when the limit is exceeded.
        """
        num_rows = len(request.rows)
        places = np.arange(num_rows) if request.places is None else request.places
        size = request.group_size or num_rows
        num_own = num_rows if request.num_own is None else request.num_own
        chosen = {}
        for position, error in damaged.items():
            readable = [other for other in _following(places, position, size) if other not in damaged]
            self.num_replaced += position < num_own
            if not readable:
                raise UserError(f"{error} (no other row of its group of {size} can replace it)") from error
            if self.num_replaced > self._limit:
                raise UserError(f"{error} (max_replaced: {self._limit} rows were replaced already)") from error
            chosen[position] = readable[0]
        return chosen

    def log(self, damaged: UserError, key: str) -> None:
        """Log one replacement."""
        LOG.warning("replaced by %s: %s", key, damaged)


def _following(places: NDArray[np.int64], position: int, size: int) -> list[int]:
    """Positions of the other rows of a row's group, in cyclic order of their places after its own."""
    others = np.flatnonzero((places // size == places[position] // size) & (places != places[position]))
    distance = (places[others] - places[position]) % size
    return [int(other) for other in others[np.argsort(distance)]]
