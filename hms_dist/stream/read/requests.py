"""Plan the byte ranges to read for some rows: members close to each other are read by one request."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import compile_function
from hms_dist.shards.index import MemberMap
from hms_dist.stream.read import decode

MAX_REQUEST_BYTES = 8 << 20
"""Largest request; longer runs of neighbouring members are split."""
OFFSET_BITS = 40
"""Bits of the offset in an integer that combines shard and offset: a tar may have 2^40 bytes."""

Words = NDArray[np.int64]


@dataclass(frozen=True)
class Requests:
    """Byte ranges to read and the members in each, in the order of the tars; tables as defined in `decode`."""

    shard: Words
    """Shard of each range [requests]."""
    table: Words
    """The ranges [requests, NUM_REQUEST_COLUMNS]; file and address are set later."""
    items: Words
    """Their members [rows x panels, NUM_ITEM_COLUMNS]: PANEL is the number of the requested panel; the target is set
    later."""
    place: Words
    """Position of each member's row among the requested rows [rows x panels]."""


class MemberTable:
    """Shard, offset, size and checksum of members of every row: [members, rows] each."""

    def __init__(self, shards: Words, members: Sequence[MemberMap]) -> None:
        self._where = np.stack([member.offset for member in members]).astype(np.int64)
        self._where |= shards.astype(np.int64) << OFFSET_BITS
        self._size = np.stack([member.size for member in members]).astype(np.int64)
        self._crc32 = np.stack([member.crc32 for member in members]).astype(np.int64)

    def requests(self, rows: Words, members: Words, gap_bytes: int) -> Requests:
        """Plan requests for `members` [panels, m]: the number of the member for each panel and each of `rows` [m]."""
        return Requests(*_plan(self._where, self._size, self._crc32, np.array(rows, np.int64), members, gap_bytes))


@partial(compile_function, nogil=False)
def _plan(
    where: Words, sizes: Words, checksums: Words, rows: Words, members: Words, gap_bytes: int
) -> tuple[Any, Any, Any, Any]:
    """Compute the fields of `Requests`. NumPy would take half a millisecond for each batch."""
    num_slots, num_rows = members.shape
    keys = np.empty(num_slots * num_rows, np.int64)
    for slot in range(num_slots):
        for place in range(num_rows):
            keys[slot * num_rows + place] = where[members[slot, place], rows[place]]
    order = np.argsort(keys, kind="mergesort")
    items = np.zeros((len(keys), decode.NUM_ITEM_COLUMNS), np.int64)
    table = np.zeros((len(keys), decode.NUM_REQUEST_COLUMNS), np.int64)
    shards, places = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
    num_requests, run_start, part, end = 0, 0, 0, 0
    for number, which in enumerate(order):
        slot, place = divmod(which, num_rows)
        row, member = rows[place], members[slot, place]
        shard, start = keys[which] >> OFFSET_BITS, keys[which] & ((1 << OFFSET_BITS) - 1)
        is_apart = num_requests == 0 or shards[num_requests - 1] != shard or start - end > gap_bytes
        if is_apart:
            run_start, part = start, 0
        if is_apart or (start - run_start) // MAX_REQUEST_BYTES != part:
            part = (start - run_start) // MAX_REQUEST_BYTES
            new = table[num_requests]
            new[decode.FILE], new[decode.START], new[decode.FIRST_ITEM] = -1, start, number
            shards[num_requests] = shard
            num_requests += 1
        request, item = table[num_requests - 1], items[number]
        size = sizes[member, row]
        end = start + size
        request[decode.LENGTH] = max(request[decode.LENGTH], end - request[decode.START])
        request[decode.NUM_ITEMS] += 1
        item[decode.OFFSET], item[decode.SIZE] = start - request[decode.START], size
        item[decode.CRC] = checksums[member, row]
        item[decode.PANEL], item[decode.STATE] = slot, decode.WAITING
        places[number] = place
    return shards[:num_requests], table[:num_requests], items, places
