"""Requests contain exactly the requested members, are few, and have a limited size."""

import numpy as np
import pytest

from hms_dist.shards.index import MemberMap
from hms_dist.stream.read.decode import CRC, FIRST_ITEM, LENGTH, NUM_ITEMS, OFFSET, PANEL, SIZE, START
from hms_dist.stream.read.requests import MAX_REQUEST_BYTES, MemberTable


def random_table(rng, num_rows, num_members=3, largest=4000):
    """Consecutive members in tars of ten rows, separated by headers: shard, offset and size [members, rows]."""
    size = rng.integers(1, largest, (num_members, num_rows))
    offset = np.empty_like(size)
    shard = np.arange(num_rows) // 10
    for row in range(num_rows):
        at = 0 if row % 10 == 0 else offset[-1, row - 1] + size[-1, row - 1]
        for member in range(num_members):
            offset[member, row] = at + 512
            at = offset[member, row] + size[member, row]
    maps = [MemberMap(o, s.astype(np.int32), (s * 7).astype(np.uint32)) for o, s in zip(offset, size, strict=True)]
    return MemberTable(shard, maps), shard, offset, size


@pytest.mark.parametrize("gap_bytes", [0, 512, 5000, 10**6])
def test_every_member_is_in_its_place_once(gap_bytes, rng) -> None:
    table, shard, offset, size = random_table(rng, 47)
    rows, members = rng.integers(0, 47, 12), rng.integers(0, 3, (2, 12))
    found = table.requests(rows, members, gap_bytes)
    slots, starts, lengths = found.items[:, PANEL], found.table[:, START], found.table[:, LENGTH]
    assert sorted(zip(slots, found.place, strict=True)) == [(s, p) for s in range(2) for p in range(12)]
    assert found.table[:, FIRST_ITEM].tolist() == [0, *found.table[:, NUM_ITEMS].cumsum()[:-1]]
    request = np.repeat(np.arange(len(starts)), found.table[:, NUM_ITEMS])
    for number, (slot, place, item) in enumerate(zip(slots, found.place, found.items, strict=True)):
        row, member = rows[place], members[slot, place]
        assert found.shard[request[number]] == shard[row]
        assert starts[request[number]] + item[OFFSET] == offset[member, row]
        assert item[OFFSET] + item[SIZE] <= lengths[request[number]]
        assert (item[SIZE], item[CRC]) == (size[member, row], size[member, row] * 7)


def test_close_members_are_one_request(rng: np.random.Generator) -> None:
    table, _, offset, size = random_table(rng, 40)
    rows, every = np.arange(5, 15)[::-1], np.repeat(np.arange(3)[:, None], 10, axis=1)
    assert len(table.requests(rows, every, 512).table) == 2  # rows 5 to 9 and 10 to 14, in two tars
    assert len(table.requests(rows, every, 511).table) == 30
    assert table.requests(rows, every, 512).table[:, LENGTH].sum() == sum(
        offset[2, last] + size[2, last] - offset[0, first] for first, last in ((5, 9), (10, 14))
    )


def test_long_runs_are_cut(rng: np.random.Generator) -> None:
    table, *_ = random_table(rng, 10, largest=2_000_000)
    found = table.requests(np.arange(10), np.repeat(np.arange(3)[:, None], 10, axis=1), 512)
    assert len(found.table) > 1
    assert found.table[:, LENGTH].max() <= MAX_REQUEST_BYTES + 2_000_000
