"""The cache of remote blocks: the same bytes, each fetched once, bounded, robust to changes of its folder."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hms_dist.stream.read.cache import BLOCK_BYTES, BlockCache, CacheConfig


@pytest.fixture
def remote(rng):
    """A file of several blocks and a part of one, a function that fetches ranges, and a list of fetched ranges."""
    content = rng.integers(0, 256, 6 * BLOCK_BYTES + 1234, dtype=np.uint8).tobytes()
    fetched = []

    def fetch(start, end):
        assert end <= len(content)
        fetched.append((start, end))
        return content[start:end]

    return content, fetch, fetched


def test_ranges_equal_the_file_and_blocks_are_fetched_once(tmp_path, remote, rng) -> None:
    content, fetch, fetched = remote
    cache = BlockCache(CacheConfig(folder=tmp_path), "set")
    for _ in range(60):
        start, end = np.sort(rng.integers(0, len(content) + 1, 2))
        assert cache.read("a.tar", range(start, end), len(content), fetch) == content[start:end]
    blocks = [block for start, end in fetched for block in range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))]
    assert len(blocks) == len(set(blocks))
    fetched.clear()
    again = BlockCache(CacheConfig(folder=tmp_path), "set")
    assert again.read("a.tar", range(5, len(content)), len(content), fetch) == content[5:]
    cache.read("a.tar", range(len(content)), len(content), fetch)
    assert len(fetched) <= 1  # the blocks that the random ranges missed, if any


def test_missing_neighbours_are_one_request(tmp_path, remote) -> None:
    content, fetch, fetched = remote
    cache = BlockCache(CacheConfig(folder=tmp_path), "set")
    cache.read("a.tar", range(2 * BLOCK_BYTES, 2 * BLOCK_BYTES + 1), len(content), fetch)
    cache.read("a.tar", range(len(content)), len(content), fetch)
    assert fetched == [
        (2 * BLOCK_BYTES, 3 * BLOCK_BYTES), (0, 2 * BLOCK_BYTES), (3 * BLOCK_BYTES, len(content)),
    ]  # fmt: skip


def test_sets_and_files_are_kept_apart(tmp_path) -> None:
    one, other = (BlockCache(CacheConfig(folder=tmp_path), name) for name in ("one", "other"))
    assert one.read("a", range(3), 3, lambda *_: b"one") == b"one"
    assert other.read("a", range(3), 3, lambda *_: b"two") == b"two"
    assert one.read("b", range(3), 3, lambda *_: b"six") == b"six"


def test_the_folder_keeps_its_limit_and_the_blocks_that_are_used(tmp_path, remote) -> None:
    content, fetch, fetched = remote
    cache = BlockCache(CacheConfig(folder=tmp_path, limit_gb=3 * BLOCK_BYTES / 1e9), "set")
    for number in (0, 1, 2, 0, 3, 0, 4):
        cache.read("a.tar", range(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES), len(content), fetch)
        assert sum(path.stat().st_size for path in tmp_path.glob("*/*/*")) <= 3 * BLOCK_BYTES
    assert fetched.count((0, BLOCK_BYTES)) == 1
    assert len(fetched) == 5


def test_a_dropped_range_is_fetched_again(tmp_path, remote) -> None:
    content, fetch, fetched = remote
    cache = BlockCache(CacheConfig(folder=tmp_path), "set")
    for _ in range(2):
        assert cache.read("a.tar", range(10, 20), len(content), fetch) == content[10:20]
        cache.invalidate("a.tar", range(10, 20))
    assert len(fetched) == 2


def test_many_readers_of_one_folder_agree(tmp_path, remote, rng) -> None:
    content, fetch, _ = remote
    caches = [BlockCache(CacheConfig(folder=tmp_path, limit_gb=BLOCK_BYTES * 2 / 1e9), "set") for _ in range(4)]
    wrong = []

    def read(cache, generator):
        for start in generator.integers(0, len(content) - 1000, 40):
            if cache.read("a.tar", range(start, start + 1000), len(content), fetch) != content[start : start + 1000]:
                wrong.append(start)

    with ThreadPoolExecutor(len(caches)) as pool:
        list(pool.map(read, caches, rng.spawn(len(caches))))
    assert not wrong


def test_a_limit_of_zero_is_rejected(tmp_path) -> None:
    with pytest.raises(ValueError, match="limit_gb: expected more than 0, found 0"):
        CacheConfig(folder=tmp_path, limit_gb=0)


def test_a_truncated_block_is_fetched_again(tmp_path, remote) -> None:
    content, fetch, fetched = remote
    cache = BlockCache(CacheConfig(folder=tmp_path), "set")
    for _ in range(2):
        assert cache.read("a.tar", range(len(content)), len(content), fetch) == content
        for block in tmp_path.glob("*/*/*"):
            block.write_bytes(block.read_bytes()[:-1])
    assert len(fetched) == 2


def test_a_folder_without_write_access_causes_a_warning_only(tmp_path, remote, caplog) -> None:
    content, fetch, _ = remote
    cache = BlockCache(CacheConfig(folder=tmp_path), "set")
    (tmp_path / "set/a.tar").write_text("in the way")
    assert cache.read("a.tar", range(7), len(content), fetch) == content[:7]
    assert "cannot write to the cache" in caplog.text
