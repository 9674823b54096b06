"""Panels of any rows of a shard set, by range reads through the index; every member's CRC-32 is checked."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from hms_dist.errors import UserError
from hms_dist.shards.index import Index, Manifest, tar_names
from hms_dist.shards.schema import Array, crc32

MAX_OPEN_FILES = 64
"""Tars kept open at once by one reader."""


class ShardReader:
    """Reads the stored panels of rows of one shard set. Safe to call from several threads."""

    def __init__(self, folder: Path, manifest: Manifest, index: Index, panels: Sequence[str]) -> None:
        missing = [name for name in panels if name not in manifest.panels]
        if missing:
            raise UserError(
                f"{folder}: no panel '{missing[0]}'; the set has {', '.join(manifest.panels)}; "
                "render it, or choose another canvas"
            )
        self.specs = {name: manifest.panels[name] for name in panels}
        self._folder = folder
        self._names = tar_names(manifest)
        self._keys = index.frame["key"].to_numpy()
        self._shards = index.ids("shard")
        self._members = {name: index.member(name) for name in panels}
        self._files: OrderedDict[int, _Tar] = OrderedDict()
        self._lock = Lock()

    def read(self, rows: NDArray[np.int64]) -> dict[str, Array]:
        """Stored arrays [len(rows), *spec.stored_shape] of each panel, bits still packed.

        Raises UserError naming shard, key and byte range of a member that cannot be read or is damaged.
        """
        out = {name: np.empty((len(rows), *s.stored_shape), s.stored_dtype) for name, s in self.specs.items()}
        for place, row in enumerate(rows):
            for name in self.specs:
                out[name][place] = self._member(int(row), name)
        return out

    def close(self) -> None:
        """Let go of the open tars; reading opens them again."""
        with self._lock:
            self._files.clear()

    def _member(self, row: int, name: str) -> Array:
        places = self._members[name]
        offset, size = int(places.offset[row]), int(places.size[row])
        shard = int(self._shards[row])
        try:
            content = self._open(shard).read(offset, size)
            if crc32(content) != places.crc32[row]:
                raise ValueError("checksum differs: the file is damaged")
            return self.specs[name].decode(content)
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self._folder / self._names[shard]}: {name} of {self._keys[row]}, bytes {offset} to {offset + size}: "
                f"{error}; run hms-dist verify --shards {self._folder}"
            ) from error

    def _open(self, shard: int) -> "_Tar":
        """An open tar; the one unused for longest is dropped when too many are open."""
        with self._lock:
            if shard not in self._files:
                self._files[shard] = _Tar(self._folder / self._names[shard])
            self._files.move_to_end(shard)
            if len(self._files) > MAX_OPEN_FILES:
                self._files.popitem(last=False)
            return self._files[shard]


class _Tar:
    """A file handle that closes with its last user, so that dropping it cannot pull it from under a read."""

    def __init__(self, path: Path) -> None:
        self._handle = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "_handle"):
            os.close(self._handle)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`; fewer at the end of the file."""
        return os.pread(self._handle, size, offset)
