"""A bounded cache of remote files on a local disk, in blocks of equal size; each block is a file.

Several processes may share a folder: a block is written under a temporary name and renamed. Blocks are written without
fsync, because readers check the CRC-32 of every member and drop damaged blocks.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from hms_dist.core.files import read_bytes
from hms_dist.core.logging import LOG

BLOCK_BYTES = 1 << 18
_STALE_S = 3600.0
_SLACK = 0.05
"""Share of the limit that a process writes between two checks of the folder's size."""


@dataclass(frozen=True, kw_only=True)
class CacheConfig:
    """Folder and size of the cache of remote files."""

    folder: Path
    """Folder on a local disk; created if missing. Several runs may share it."""
    limit_gb: float = 50.0
    """Size of the cache, 10^9 bytes; the least recently used blocks are removed. Each process may exceed it by 5 %."""

    def __post_init__(self) -> None:
        if self.limit_gb <= 0:
            raise ValueError(f"limit_gb: expected more than 0, found {self.limit_gb}")


class BlockCache:
    """Reads ranges of files from the cache; missing blocks are fetched. Thread-safe."""

    def __init__(self, config: CacheConfig, fingerprint: str) -> None:
        """`fingerprint`: of the shard set, which names its subfolder."""
        self._root = config.folder
        self._folder = config.folder / fingerprint[:32]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._limit = int(config.limit_gb * 1e9)
        self._bytes_since_check = self._limit
        self._lock = Lock()

    def read(self, name: str, span: range, file_bytes: int, fetch: Callable[[int, int], bytes]) -> bytes:
        """Read the bytes `span` of a file of `file_bytes`; `fetch(start, end)` reads missing blocks from the source."""
        numbers = range(span.start // BLOCK_BYTES, -(-span.stop // BLOCK_BYTES))
        blocks = {number: self._stored(name, number, file_bytes) for number in numbers}
        for first, last in _runs(number for number, content in blocks.items() if content is None):
            start, end = first * BLOCK_BYTES, min((last + 1) * BLOCK_BYTES, file_bytes)
            content = fetch(start, end)
            for number in range(first, last + 1):
                at = (number - first) * BLOCK_BYTES
                blocks[number] = content[at : at + BLOCK_BYTES]
                self._store(name, number, blocks[number] or b"")
        whole = b"".join(content or b"" for content in blocks.values())
        skipped = numbers.start * BLOCK_BYTES
        return whole[span.start - skipped : span.stop - skipped]

    def invalidate(self, name: str, span: range) -> None:
        """Remove the blocks of a damaged range."""
        for number in range(span.start // BLOCK_BYTES, -(-span.stop // BLOCK_BYTES)):
            self._path(name, number).unlink(missing_ok=True)

    def _path(self, name: str, number: int) -> Path:
        return self._folder / name / f"{number:08d}"

    def _stored(self, name: str, number: int, file_bytes: int) -> bytes | None:
        """Read a block from the cache; None if it is missing or incomplete."""
        path = self._path(name, number)
        try:
            content = read_bytes(path, BLOCK_BYTES)
            os.utime(path)
        except OSError:
            return None
        return content if len(content) == min(BLOCK_BYTES, file_bytes - number * BLOCK_BYTES) else None

    def _store(self, name: str, number: int, content: bytes) -> None:
        """Write a block atomically, and from time to time remove old blocks."""
        path = self._path(name, number)
        temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            path.parent.mkdir(exist_ok=True)
            temporary.write_bytes(content)
            temporary.replace(path)
        except OSError as error:  # a full disk does not stop the run
            with suppress(OSError):
                temporary.unlink()
            LOG.warning(
                "%s: cannot write to the cache (%s); free disk space, or lower storage.cache.limit_gb", path, error
            )
        with self._lock:
            self._bytes_since_check += len(content)
            if self._bytes_since_check > self._limit * _SLACK:
                self._bytes_since_check = 0
                _shrink(self._root, self._limit)


def _runs(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        begun = runs and runs[-1][1] == number - 1
        runs[-1:] = [(runs[-1][0], number)] if begun else [*runs[-1:], (number, number)]
    return runs


def _shrink(folder: Path, limit: int) -> None:
    """Remove the least recently used blocks until the rest fits; another process may do the same at the same time.

    Temporary files of blocks that are being written are kept, except old ones, whose writer was killed.
    """
    found = []
    for path in folder.glob("*/*/*"):
        with suppress(FileNotFoundError):
            facts = path.stat()
            if path.name.startswith(".") and time.time() - facts.st_mtime < _STALE_S:
                continue
            found.append((facts.st_mtime_ns, facts.st_size, path))
    excess = sum(size for _, size, _ in found) - limit
    for _, size, path in sorted(found):
        if excess <= 0:
            return
        path.unlink(missing_ok=True)
        excess -= size
