"""Which bytes of which tars a group of rows needs: members that lie close together are one request."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.shards.index import MemberMap

MAX_REQUEST_BYTES = 8 << 20
"""Length from which on a run of neighbouring members is read in several requests."""

Words = NDArray[np.int64]


@dataclass(frozen=True)
class Requests:
    """Ranges to read, and the members in each: arrays in the order of the tars."""

    shard: Words
    """Of each range [requests]."""
    start: Words
    length: Words
    first_item: Words
    """Its first member, of its `num_items`."""
    num_items: Words
    offset: Words
    """Of each member [rows x slots], bytes from the start of its request."""
    size: Words
    crc32: Words
    slot: Words
    """Which of the panels asked for."""
    place: Words
    """Which of the rows asked for."""


class MemberTable:
    """Where some members of every row lie, [members, rows] each."""

    def __init__(self, shards: Words, members: Sequence[MemberMap]) -> None:
        self._shards = shards
        self._offset = np.stack([member.offset for member in members])
        self._size = np.stack([member.size for member in members]).astype(np.int64)
        self._crc32 = np.stack([member.crc32 for member in members]).astype(np.int64)

    def requests(self, rows: Words, members: Words, gap_bytes: int) -> Requests:
        """Requests for `members` [slots, m]: numbers of the members that fill each slot for each of `rows` [m]."""
        slot, place = (axis.ravel() for axis in np.indices(members.shape))
        row, member = rows[place], members.ravel()
        shard, start = self._shards[row], self._offset[member, row]
        order = np.lexsort((start, shard))
        shard, start, row, member = shard[order], start[order], row[order], member[order]
        size = self._size[member, row]
        first = _first_items(shard, start, start + size, gap_bytes)
        num_items = np.diff(first, append=len(order))
        end = np.maximum.reduceat(start + size, first)
        return Requests(
            shard[first], start[first], end - start[first], first, num_items,
            start - np.repeat(start[first], num_items), size, self._crc32[member, row], slot[order], place[order],
        )  # fmt: skip


def _first_items(shard: Words, start: Words, end: Words, gap_bytes: int) -> Words:
    """Numbers of the items, sorted by place, that begin a request."""
    begins = np.ones(len(start), bool)
    begins[1:] = (shard[1:] != shard[:-1]) | (start[1:] - end[:-1] > gap_bytes)
    run_start = start[begins][np.cumsum(begins) - 1]
    part = (start - run_start) // MAX_REQUEST_BYTES
    begins[1:] |= part[1:] != part[:-1]
    found: Words = np.flatnonzero(begins)
    return found
