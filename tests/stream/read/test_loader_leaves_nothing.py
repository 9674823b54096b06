"""The loader leaves no threads, file handles or shared memory behind."""

import gc
import os
import threading
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from hms_dist.core.errors import JobError
from hms_dist.shards.index import open_set
from hms_dist.stream.read import decode
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.storage import StorageConfig


def open_reader(folder, **options):
    return ShardReader(folder, *open_set(folder), ("traces", "kaggle_spectrogram"), **options)


@pytest.fixture(autouse=True)
def counted(shard_set):
    def held():
        """Threads, open files and shared memory of this process; earlier tests may still be closing some."""
        gc.collect()  # exceptions and their frames hold each other
        named = [name for name in os.listdir("/dev/shm") if f"_{os.getpid()}_" in name]  # torch's names
        mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if "/dev/shm/" in line]
        opened = []
        for number in os.listdir("/proc/self/fd"):
            with suppress(FileNotFoundError):  # the list's own handle
                opened.append((number, os.readlink(f"/proc/self/fd/{number}")))
        return {*threading.enumerate(), *opened, *named, *mapped}

    next(iter(load(open_reader(shard_set), [Request(np.array([0]))], threads=1)))  # compiles
    before = held()
    yield
    assert held() <= before


@pytest.mark.parametrize("depth", [None, 3])
def test_after_a_hundred_epochs(shard_set, depth):
    reader = open_reader(shard_set, storage=StorageConfig(depth=depth))
    for _ in range(100):
        assert len([batch.rows for batch in load(reader, map(Request, np.arange(6).reshape(3, 2)), threads=2)]) == 3
    reader.close()


@pytest.mark.parametrize("num_taken", [0, 1, 3])
@pytest.mark.parametrize("depth", [None, 3])
@pytest.mark.parametrize("threads", [0, 3])
def test_after_stopping_early(shard_set, num_taken, depth, threads):
    reader = open_reader(shard_set, storage=StorageConfig(depth=depth))
    batches = load(reader, (Request(np.array([0, 1])) for _ in range(50)), threads=threads)
    for _ in range(num_taken):
        next(batches)
    batches.close()
    reader.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_after_an_exception_of_the_caller(shard_set, error):
    reader = open_reader(shard_set)

    def train():
        with closing(load(reader, (Request(np.array([0, 1])) for _ in range(50)), threads=2)) as batches:
            for _ in batches:
                raise error

    with pytest.raises(error):
        train()
    reader.close()


def test_after_an_exception_of_a_thread(shard_set, monkeypatch):
    def fail(*_):
        raise MemoryError("no room")

    reader = open_reader(shard_set)
    monkeypatch.setattr(decode, "work", fail)
    with pytest.raises(JobError, match=r"a reader thread failed: MemoryError\('no room'\)") as caught:
        next(load(reader, [Request(np.array([0]))], threads=1))
    assert isinstance(caught.value.__cause__, MemoryError)
    reader.close()
