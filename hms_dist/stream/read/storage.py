"""Storage of the tars of a shard set: a folder or a URL, with one interface."""

import os
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import Protocol
from weakref import WeakValueDictionary

from hms_dist.core.files import open_file
from hms_dist.core.remote import RemoteFile, RetryPolicy, is_url, join
from hms_dist.shards.manifest import Manifest
from hms_dist.stream.read.cache import BlockCache, CacheConfig

MAX_OPEN_FILES = 64
"""Largest number of tars kept open."""
URL_DEPTH = 16
"""Default number of concurrent requests to a server."""


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """Options for reading a shard set."""

    depth: int | None = None
    """Number of concurrent reads, in threads other than those that decode; for storage of high latency. None: 16 for a
    URL and for the blocks of `locality`; otherwise the decoding threads read the folder, which is fastest on a local
    disk."""
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    """Time-out and retries of requests to a server."""
    cache: CacheConfig | None = None
    """Cache of files from a URL on a local disk. None: no cache."""

    def __post_init__(self) -> None:
        if self.depth is not None and not 1 <= self.depth <= 256:
            raise ValueError(f"depth: expected 1 to 256 or null, found {self.depth}")


class Storage(Protocol):
    """Interface of a storage. Thread-safe."""

    depth: int
    """Number of concurrent reads."""
    gap_bytes: int
    """Ranges of one file with at most this distance are read by one request."""

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """Read `size` bytes of a file from `start`; fewer only at the end of the file. Raises OSError.

        `cancelled`: once it is set, a failed request is not retried.
        """

    def invalidate(self, name: str, start: int, size: int) -> None:
        """Remove a damaged range of `size` bytes from caches, so that it is read again."""

    def close(self) -> None:
        """Close files and connections; the next read opens them again."""


class OpenFile:
    """A file descriptor that is closed with its last reference, so never during a read."""

    def __init__(self, path: Path) -> None:
        with open_file(path) as file:
            self.handle = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class LocalFiles:
    """Storage in a folder."""

    gap_bytes = 1 << 16

    def __init__(self, folder: Path, depth: int | None) -> None:
        """`depth` None: the decoding threads read from the file descriptors (`direct`)."""
        self.direct = depth is None
        self.depth = depth or 1
        self._folder = folder
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._in_use: WeakValueDictionary[str, OpenFile] = WeakValueDictionary()
        self._lock = Lock()

    def open(self, name: str) -> OpenFile:
        """Return an open file; the least recently used one is closed when too many are open. Raises OSError.

        A file is never opened twice, so at most MAX_OPEN_FILES are open, and those of current reads.
        """
        with self._lock:
            file = self._files.get(name)
            if file is not None:
                self._files.move_to_end(name)
                return file
            file = self._in_use.get(name)
            if file is None:
                file = self._in_use[name] = OpenFile(self._folder / name)
            self._files[name] = file
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
            return file

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """See `Storage`."""
        del cancelled
        file = self.open(name)
        return os.pread(file.handle, size, start)

    def invalidate(self, name: str, start: int, size: int) -> None:
        """See `Storage`: does nothing, there is no cache."""

    def close(self) -> None:
        """See `Storage`."""
        with self._lock:
            self._files.clear()


class RemoteFiles:
    """Storage at a URL."""

    gap_bytes = 1 << 18

    def __init__(self, url: str, config: StorageConfig, manifest: Manifest) -> None:
        self.depth = config.depth or URL_DEPTH
        self._url, self._retry_policy = url, config.patience
        self._cache = BlockCache(config.cache, manifest.fingerprint) if config.cache else None
        self._file_bytes = {str(entry["name"]): int(entry["num_bytes"]) for entry in manifest.files}
        self._files: dict[str, RemoteFile] = {}

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """See `Storage`."""
        pause = time.sleep if cancelled is None else cancelled.wait
        end = min(start + size, self._file_bytes[name])

        def fetch(first: int, last: int) -> bytes:
            file = self._files.setdefault(name, RemoteFile(str(join(self._url, name)), self._retry_policy))
            return self._retry_policy.retried(lambda: file.read(first, last), pause)

        if self._cache is None:
            return fetch(start, end)
        return self._cache.read(name, range(start, end), self._file_bytes[name], fetch)

    def invalidate(self, name: str, start: int, size: int) -> None:
        """See `Storage`."""
        if self._cache is not None:
            self._cache.invalidate(name, range(start, start + size))

    def close(self) -> None:
        """See `Storage`."""
        self._files.clear()


def open_storage(location: str | Path, config: StorageConfig, manifest: Manifest) -> Storage:
    """Create the storage of a shard set at a location."""
    if is_url(location):
        return RemoteFiles(str(location), config, manifest)
    return LocalFiles(Path(location), config.depth)
