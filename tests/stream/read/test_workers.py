"""Threads are reused by the next stream of a reader, but only within a process."""

import os
import threading

import numpy as np

from hms_dist.shards.index import open_set
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader


def open_reader(folder):
    return ShardReader(folder, *open_set(folder), ("traces",))


def readers(before=frozenset()):
    """Return the current reader threads, without those of other tests."""
    return {thread for thread in threading.enumerate() if thread.name == "shard-reader"} - before


def requests(number):
    return [Request(np.array([row % 3, 4])) for row in range(number)]


def test_a_stream_takes_the_threads_of_the_one_before(shard_set):
    others, reader = readers(), open_reader(shard_set)
    rows = [batch.panels["traces"].clone() for batch in load(reader, requests(5), threads=2)]
    first = readers(others)
    assert len(first) == 2
    again = [batch.panels["traces"].clone() for batch in load(reader, requests(5), threads=2)]
    assert readers(others) == first
    assert all(one.equal(other) for one, other in zip(rows, again, strict=True))
    assert len(list(load(reader, requests(2), threads=1))) == 2
    assert len(readers(others)) == 3  # another number has threads of its own
    reader.close()
    assert not readers(others)
    assert len(list(load(reader, requests(2), threads=2))) == 2  # a closed reader reads on
    reader.close()


def test_streams_at_once_have_threads_of_their_own(shard_set):
    others, reader = readers(), open_reader(shard_set)
    one, two = (load(reader, requests(6), threads=1) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        assert a.panels["traces"].equal(b.panels["traces"])
        assert len(readers(others)) == 2
    assert len(readers(others)) == 2
    reader.close()


def test_what_a_stream_left_undone_does_not_reach_the_next(shard_set, rng):
    others, reader = readers(), open_reader(shard_set)
    for _ in range(20):
        batches = load(reader, [Request(rng.integers(0, len(open_set(shard_set)[1]), 3)) for _ in range(9)], threads=2)
        for _ in range(rng.integers(0, 9)):
            batch = next(batches)
            np.testing.assert_array_equal(batch.panels["traces"].numpy(), reader.read(batch.rows)["traces"])
        batches.close()
        assert len(readers(others)) in (0, 2)  # ended with what they were to do, or kept
    reader.close()
    assert not readers(others)


def test_a_fork_begins_threads_of_its_own_and_leaves_its_parents_alone(shard_set):
    others, reader = readers(), open_reader(shard_set)
    wanted = [batch.panels["traces"].clone() for batch in load(reader, requests(3), threads=2)]
    threads = readers(others)
    child = os.fork()
    if child == 0:
        try:
            found = [batch.panels["traces"].clone() for batch in load(reader, requests(3), threads=2)]
            reader.close()
            os._exit(0 if all(one.equal(other) for one, other in zip(found, wanted, strict=True)) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(list(load(reader, requests(3), threads=2))) == 3
    assert readers(others) == threads
    reader.close()
