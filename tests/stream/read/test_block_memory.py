"""Cached blocks: the same bytes, each block read once, errors not cached."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import tar_names
from hms_dist.stream.read.block_memory import BlockMemory, block_bounds
from hms_dist.stream.rows.locality import block_numbers


class Bytes:
    """A storage of random bytes that records its reads."""

    depth, gap_bytes = 3, 5

    def __init__(self, rng, num_bytes=1000):
        self.content = rng.bytes(num_bytes)
        self.asked, self.forgotten, self.closed = [], [], 0
        self.broken = False

    def read(self, name, start, size, cancelled=None):
        self.asked.append((name, start, size))
        if self.broken:
            raise OSError("the line is dead")
        return self.content[start : start + size]

    def invalidate(self, name, start, size):
        self.forgotten.append((name, start, size))

    def close(self):
        self.closed += 1


BOUNDS = np.array([100, 250, 400, 990])


def memory_over(storage, num_kept=3):
    return BlockMemory(storage, {"a": BOUNDS, "b": BOUNDS}, num_kept)


def test_any_range_of_the_blocks_is_what_the_file_holds(rng):
    storage = Bytes(rng)
    memory = memory_over(storage)
    for _ in range(200):
        start, end = np.sort(rng.choice(np.arange(100, 991), 2, replace=False)).tolist()
        assert memory.read("a", start, end - start) == storage.content[start:end]
    assert sorted(storage.asked) == [("a", 100, 150), ("a", 250, 150), ("a", 400, 590)]


def test_files_are_distinguished_and_the_oldest_block_is_dropped(rng):
    storage = Bytes(rng)
    memory = memory_over(storage, num_kept=2)
    for name, start in [("a", 100), ("b", 100), ("a", 120), ("a", 300), ("a", 110), ("b", 100)]:
        memory.read(name, start, 10)
    assert storage.asked == [("a", 100, 150), ("b", 100, 150), ("a", 250, 150), ("b", 100, 150)]


def test_threads_that_want_one_block_read_it_once(rng):
    storage = Bytes(rng)
    inside, go_on = threading.Event(), threading.Event()
    real = storage.read

    def slow(*arguments):
        inside.set()
        assert go_on.wait(240)
        return real(*arguments)

    storage.read = slow
    memory = memory_over(storage)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(memory.read, "a", 100 + 10 * number, 10) for number in range(4)]
        assert inside.wait(240)
        go_on.set()
        found = [future.result() for future in waiting]
    assert found == [storage.content[100 + 10 * number :][:10] for number in range(4)]
    assert storage.asked == [("a", 100, 150)]


def test_an_error_reaches_the_caller_and_the_next_try_reads_again(rng):
    storage = Bytes(rng)
    memory = memory_over(storage)
    storage.broken = True
    with pytest.raises(OSError, match="the line is dead"):
        memory.read("a", 100, 10)
    storage.broken = False
    assert memory.read("a", 100, 10) == storage.content[100:110]


def test_a_damaged_range_is_dropped_from_all_caches(rng):
    storage = Bytes(rng)
    memory = memory_over(storage)
    memory.read("a", 200, 100)
    memory.invalidate("a", 260, 5)
    memory.read("a", 200, 100)
    assert storage.forgotten == [("a", 260, 5)]
    assert storage.asked == [("a", 100, 150), ("a", 250, 150), ("a", 250, 150)]


def test_closing_releases_everything(rng):
    storage = Bytes(rng)
    memory = memory_over(storage)
    memory.read("a", 100, 10)
    memory.close()
    memory.read("a", 100, 10)
    assert storage.closed == 1
    assert len(storage.asked) == 2


@pytest.mark.parametrize("block_rows", [1, 5, 16, 100])
def test_every_member_is_in_the_block_of_its_row(shard_set, block_rows):
    manifest, index = open_set(shard_set)
    tars = tar_names(manifest)
    bounds = block_bounds(index, tars, list(manifest.panels), block_rows)
    blocks, shards = block_numbers(index, block_rows), index.ids("shard")
    for member in ["json", *manifest.panels]:
        places = index.member(member)
        for row in range(len(index)):
            begins = bounds[tars[shards[row]]]
            first = blocks[shards == shards[row]][0]
            start, end = begins[blocks[row] - first], begins[blocks[row] - first + 1]
            assert start <= places.offset[row]
            assert places.offset[row] + places.size[row] <= end
    assert sum(len(begins) - 1 for begins in bounds.values()) == blocks[-1] + 1
