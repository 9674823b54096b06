"""Where the tars of a shard set are read from: a folder or a URL, behind one small interface."""

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
"""Tars kept open at once."""
URL_DEPTH = 16
"""Requests to a server that are on their way at once, unless an option says otherwise."""


@dataclass(frozen=True, kw_only=True)
class StorageConfig:
    """How a shard set is read."""

    depth: int | None = None
    """Requests that are on their way at once, apart from the threads that decode; for storage that answers slowly.
    None: 16 for a URL and for the blocks of `locality`; otherwise the decoding threads read a folder themselves, which
    is fastest where reading is quick."""
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    """How long a server is waited for."""
    cache: CacheConfig | None = None
    """Keep what comes from a URL on a local disk. None: nowhere."""

    def __post_init__(self) -> None:
        if self.depth is not None and not 1 <= self.depth <= 256:
            raise ValueError(f"depth: expected 1 to 256 or null, found {self.depth}")


class Storage(Protocol):
    """What a reader reads from. Safe to call from several threads."""

    depth: int
    """Reads that run at once."""
    gap_bytes: int
    """Ranges of one file that are no further apart than this are read as one."""

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """`size` bytes of a file from `start`; fewer only if it ends there. Raises OSError.

        `cancelled`: once it is set, a failed request is not made again.
        """

    def forget(self, name: str, start: int, size: int) -> None:
        """Drop what is kept of a range that proved damaged, so that it is read anew."""

    def close(self) -> None:
        """Let go of files and connections; reading opens them again."""


class OpenFile:
    """A file handle that closes with its last user, so that dropping it cannot pull it from under a read."""

    def __init__(self, path: Path) -> None:
        with open_file(path) as file:
            self.handle = os.dup(file.fileno())

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class LocalFiles:
    """The files of a folder."""

    gap_bytes = 1 << 16

    def __init__(self, folder: Path, depth: int | None) -> None:
        """`depth` None: readers may use the file handles themselves, in `direct` reads."""
        self.direct = depth is None
        self.depth = depth or 1
        self._folder = folder
        self._files: OrderedDict[str, OpenFile] = OrderedDict()
        self._in_use: WeakValueDictionary[str, OpenFile] = WeakValueDictionary()
        self._lock = Lock()

    def open(self, name: str) -> OpenFile:
        """An open file; the one unused for longest is dropped when too many are open. A file is never open twice,
        so there are no more than MAX_OPEN_FILES and those that reads under way hold. Raises OSError."""
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
        """As Storage."""
        del cancelled
        file = self.open(name)
        return os.pread(file.handle, size, start)

    def forget(self, name: str, start: int, size: int) -> None:
        """As Storage: nothing is kept."""

    def close(self) -> None:
        """As Storage."""
        with self._lock:
            self._files.clear()


class RemoteFiles:
    """The files of a URL."""

    gap_bytes = 1 << 18

    def __init__(self, url: str, config: StorageConfig, manifest: Manifest) -> None:
        self.depth = config.depth or URL_DEPTH
        self._url, self._retry_policy = url, config.patience
        self._cache = BlockCache(config.cache, manifest.fingerprint) if config.cache else None
        self._file_bytes = {str(entry["name"]): int(entry["num_bytes"]) for entry in manifest.files}
        self._files: dict[str, RemoteFile] = {}

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """As Storage."""
        pause = time.sleep if cancelled is None else cancelled.wait
        end = min(start + size, self._file_bytes[name])

        def fetch(first: int, last: int) -> bytes:
            file = self._files.setdefault(name, RemoteFile(str(join(self._url, name)), self._retry_policy))
            return self._retry_policy.retried(lambda: file.read(first, last), pause)

        if self._cache is None:
            return fetch(start, end)
        return self._cache.read(name, range(start, end), self._file_bytes[name], fetch)

    def forget(self, name: str, start: int, size: int) -> None:
        """As Storage."""
        if self._cache is not None:
            self._cache.forget(name, range(start, start + size))

    def close(self) -> None:
        """As Storage."""
        self._files.clear()


def open_storage(location: str | Path, config: StorageConfig, manifest: Manifest) -> Storage:
    """The storage of a shard set's location."""
    if is_url(location):
        return RemoteFiles(str(location), config, manifest)
    return LocalFiles(Path(location), config.depth)
