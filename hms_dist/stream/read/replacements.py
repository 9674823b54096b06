"""What to do about a damaged row while training: put another row of its group in its place, and say so."""

from collections.abc import Mapping

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG


class Replacements:
    """Chooses, logs and counts stand-ins, up to a limit.

    A damaged row is replaced by the next readable row of its group, the last one by the first: the group is the atom
    of a run, so the choice depends on neither ranks nor threads. The stand-in trains twice, with its own labels.
    """

    def __init__(self, limit: int) -> None:
        """`limit`: most rows that may be replaced by this reader, counted each time they are read."""
        self.num_replaced = 0
        self._limit = limit

    def choose(self, num_rows: int, damaged: Mapping[int, UserError]) -> dict[int, int]:
        """Place of each damaged row in its group -> place of its stand-in.

        Raises the UserError of a damaged row when no row of the group is readable, or when the limit is passed.
        """
        chosen = {}
        for place, error in damaged.items():
            following = ((place + step) % num_rows for step in range(1, num_rows))
            readable = [other for other in following if other not in damaged]
            self.num_replaced += 1
            if not readable:
                raise UserError(f"{error} (no other row of its group of {num_rows} can stand in)") from error
            if self.num_replaced > self._limit:
                raise UserError(f"{error} (max_replaced: {self._limit} rows were replaced already)") from error
            chosen[place] = readable[0]
        return chosen

    def say(self, damaged: UserError, key: str) -> None:
        """Log one replacement."""
        LOG.warning("replaced by %s: %s", key, damaged)
