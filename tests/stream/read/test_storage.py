"""A shard set in a folder and at a URL: the same bytes, also from a faulty server, or a clear error."""

import errno
import os
import shutil

import fsspec
import numpy as np
import pytest

from hms_dist.core.errors import UserError
from hms_dist.core.remote import RetryPolicy
from hms_dist.shards.index import open_set
from hms_dist.stream.read.cache import CacheConfig
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import DamagedMemberError, ShardReader
from hms_dist.stream.read.storage import StorageConfig

PANELS = ("traces", "kaggle_spectrogram", "eeg_spectrogram")
SOON = RetryPolicy(timeout_s=0.5, num_retries=10)
"""More retries than faults, because on a busy machine valid responses may time out too."""


@pytest.fixture
def server(serve, shard_set):
    return serve(shard_set)


def open_reader(location, **options):
    manifest, index = open_set(location)
    return ShardReader(location, manifest, index, PANELS, storage=StorageConfig(**options)), len(index)


def assert_same(batches, shard_set, groups):
    local, _ = open_reader(shard_set)
    num_batches = 0
    for rows, batch in zip(groups, batches, strict=True):
        for name, stored in local.read(rows).items():
            np.testing.assert_array_equal(batch.panels[name].numpy(), stored)
        num_batches += 1
    assert num_batches == len(groups)


def test_a_set_at_a_url_is_the_set_in_the_folder(server, shard_set):
    here, there = open_set(shard_set), open_set(server.url)
    assert here[0] == there[0]
    assert here[1].frame.equals(there[1].frame)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("cached", [False, True])
def test_batches_over_http_are_those_of_the_folder(server, shard_set, tmp_path, threads, cached, rng):
    cache = CacheConfig(folder=tmp_path / "cache") if cached else None
    reader, num_rows = open_reader(server.url, depth=4, cache=cache)
    groups = rng.integers(0, num_rows, (6, 5))
    for _ in range(2):
        assert_same(load(reader, map(Request, groups), threads=threads), shard_set, groups)
        server.asked, before = [], server.asked
    assert bool([name for name, *_ in before if name.endswith(".tar")]) is not cached


@pytest.mark.parametrize("fault", ["500", "short", "hangs", "ignores the range", "flipped"])
def test_temporary_faults_of_a_server_change_nothing(server, shard_set, fault, rng):
    reader, num_rows = open_reader(server.url, patience=SOON)
    server.faults = [fault] * (2 if fault == "flipped" else 3)  # damaged bytes are read three times in all
    groups = rng.integers(0, num_rows, (3, 4))
    assert_same(load(reader, map(Request, groups), threads=1), shard_set, groups)
    assert not server.faults


def test_a_damaged_block_of_the_cache_is_fetched_again(server, shard_set, tmp_path, rng):
    reader, num_rows = open_reader(server.url, cache=CacheConfig(folder=tmp_path / "cache"))
    groups = rng.integers(0, num_rows, (3, 4))
    for _ in load(reader, map(Request, groups), threads=1):
        pass
    for block in (tmp_path / "cache").glob("*/*/*"):
        block.write_bytes(bytes(block.stat().st_size))
    assert_same(load(reader, map(Request, groups), threads=1), shard_set, groups)


def test_a_server_that_stays_broken_is_an_error_with_shard_key_and_bytes(server):
    reader, _ = open_reader(server.url, patience=RetryPolicy(num_retries=1))
    server.faults = ["500"] * 1000
    with pytest.raises(UserError) as caught:
        next(load(reader, [Request(np.array([3]))], threads=1))
    for part in (server.url, "shard-000000.tar", "bytes", "cannot be read", "500"):
        assert part in str(caught.value)
    assert not isinstance(caught.value, DamagedMemberError)
    assert caught.value.__cause__ is not None


def test_requests_are_concurrent(server):
    reader, num_rows = open_reader(server.url, depth=6)
    server.faults = ["slow"] * 1000
    for _ in load(reader, (Request(np.array([row])) for row in range(num_rows)), threads=1, ahead=8):
        pass
    assert 3 <= server.busiest <= 6


@pytest.mark.timeout(120)
def test_stopping_does_not_wait_for_pauses(server):
    """With pauses, this would take minutes."""
    reader, _ = open_reader(server.url, depth=1, patience=RetryPolicy(num_retries=50))
    server.faults = [*["500"] * 1000, ""]
    batches = load(reader, (Request(np.array([row])) for row in range(8)), threads=1)
    next(batches)
    num_before = len(server.asked)
    batches.close()
    assert len(server.asked) <= num_before + 1, "a failed range is not requested again"
    server.faults = []
    assert_same(load(reader, [Request(np.array([1, 0]))], threads=1), reader.location, [np.array([1, 0])])


def test_a_file_is_open_once_however_many_read_it(shard_set, monkeypatch):
    monkeypatch.setattr("hms_dist.stream.read.storage.MAX_OPEN_FILES", 1)
    files = open_reader(shard_set)[0].storage
    first, second = files.open("shard-000000.tar"), files.open("shard-000001.tar")
    assert files.open("shard-000000.tar") is first
    assert files.open("shard-000001.tar") is second
    handles = [first.handle, second.handle]
    del first, second
    assert files.open("shard-000000.tar").handle in handles
    files.close()
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_too_many_open_files_are_an_error_with_advice(shard_set, monkeypatch):
    def refuse(self, name):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("hms_dist.stream.read.storage.LocalFiles.open", refuse)
    reader, _ = open_reader(shard_set)
    with pytest.raises(UserError, match=r"cannot be read \(.*Too many open files\); raise the limit .* \(ulimit -n\)"):
        next(load(reader, [Request(np.array([0]))], threads=1))


def test_any_file_system_of_fsspec_works(shard_set, rng):
    """An in-memory file system without asynchronous reads; s3 and gs use the same code as http."""
    memory = fsspec.filesystem("memory")
    memory.put(str(shard_set), "/set", recursive=True)
    reader, num_rows = open_reader("memory://set", depth=2)
    groups = rng.integers(0, num_rows, (5, 3))
    assert_same(load(reader, map(Request, groups), threads=2), shard_set, groups)
    memory.rm("/set", recursive=True)


def test_an_empty_request_is_an_empty_batch(server):
    reader, _ = open_reader(server.url, depth=2)
    batches = load(reader, [Request(np.array([3])), Request(np.empty(0, np.int64))], threads=1)
    assert [len(batch.panels["traces"]) for batch in batches] == [1, 0]


def test_a_folder_read_at_some_depth_gives_the_same(shard_set, rng):
    reader, num_rows = open_reader(shard_set, depth=3)
    groups = rng.integers(0, num_rows, (6, 5))
    assert_same(load(reader, map(Request, groups), threads=2), shard_set, groups)


def test_a_url_without_a_set_is_refused(server):
    with pytest.raises(UserError, match=r"/nothing/manifest.json: no such file"):
        open_set(f"{server.url}/nothing")
    with pytest.raises(UserError, match=r"unknown-scheme://x/manifest.json: cannot be opened"):
        open_set("unknown-scheme://x")


def test_a_missing_tar_at_a_url_is_named(serve, shard_set, tmp_path):
    folder = shutil.copytree(shard_set, tmp_path / "set")
    reader, _ = open_reader(serve(folder).url)
    (folder / "shard-000000.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000000.tar: .* cannot be read"):
        next(load(reader, [Request(np.array([0]))], threads=1))


@pytest.mark.parametrize("depth", [0, 257])
def test_bad_depths_are_refused(depth):
    with pytest.raises(ValueError, match=f"depth: expected 1 to 256 or null, found {depth}"):
        StorageConfig(depth=depth)


def test_an_invalid_retry_policy_is_rejected():
    with pytest.raises(ValueError, match="timeout_s: expected more than 0"):
        RetryPolicy(timeout_s=0)
    with pytest.raises(ValueError, match="num_retries: expected at least 0"):
        RetryPolicy(num_retries=-1)
