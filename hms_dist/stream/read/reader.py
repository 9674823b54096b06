"""Read panels of any rows of a shard set, by byte ranges from the index; the CRC-32 of every member is checked."""

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.remote import is_url, join
from hms_dist.shards.index import Index
from hms_dist.shards.manifest import Manifest, tar_names
from hms_dist.shards.schema import Array, PanelSpec, crc32
from hms_dist.stream.read.requests import MemberTable, Requests
from hms_dist.stream.read.slots import SlotPool
from hms_dist.stream.read.storage import StorageConfig, open_storage
from hms_dist.stream.read.workers import WorkerPool

Rows = NDArray[np.int64]
Flips = NDArray[np.bool_]


def _stored(spec: PanelSpec) -> tuple[object, ...]:
    return spec.codec, spec.stored_dtype, spec.stored_shape


class DamagedMemberError(UserError):
    """A member whose bytes differ from the rendered ones."""


class ShardReader:
    """Reads the stored panels of rows of one shard set. Thread-safe."""

    def __init__(
        self,
        location: str | Path,
        manifest: Manifest,
        index: Index,
        panels: Sequence[str],
        *,
        swaps: Mapping[str, str] | None = None,
        storage: StorageConfig | None = None,
    ) -> None:
        """`location`: folder or URL. `swaps`: panel -> the panel that replaces it in flipped rows.

        Raises UserError for a panel that is not in the set, ValueError for a swap with a panel of another format.
        """
        swaps = {panel: other for panel, other in (swaps or {}).items() if panel in panels}
        members = list(dict.fromkeys([*panels, *swaps.values()]))
        missing = [name for name in members if name not in manifest.panels]
        if missing:
            raise UserError(
                f"{location}: no panel '{missing[0]}'; the set has {', '.join(manifest.panels)}; "
                "render it, or choose another canvas"
            )
        self.specs = {name: manifest.panels[name] for name in panels}
        for name, other in swaps.items():
            if _stored(manifest.panels[name]) != _stored(manifest.panels[other]):
                raise ValueError(f"swaps: '{name}' and '{other}' are stored in different formats")
        self.location = location
        self.slots = SlotPool(list(self.specs.values()))
        """Memory of the streams of this reader."""
        self.worker_pool = WorkerPool(list(self.specs.values()))
        """Threads of the streams of this reader."""
        self.storage = open_storage(location, storage or StorageConfig(), manifest)
        self.tars = tar_names(manifest)
        """File names, by shard."""
        self._keys = index.frame["key"].to_numpy()
        self._shards = index.ids("shard")
        self._members = [(name, manifest.panels[name], index.member(name)) for name in members]
        self._plain = np.array([members.index(name) for name in panels], np.int64)
        self._flipped = np.array([members.index(swaps.get(name, name)) for name in panels], np.int64)
        self.num_bytes = np.array([spec.num_bytes for spec in self.specs.values()], np.int64)
        """Size of one row's array in bytes, by panel."""
        self._table = MemberTable(self._shards, [places for _, _, places in self._members])

    def read(self, rows: Rows, flips: Flips | None = None) -> dict[str, Array]:
        """Read rows one by one: stored arrays [len(rows), *spec.stored_shape] of each panel, with packed bits.

        Arrays have the dtype of their panel. Raises UserError naming shard, key and byte range of a member that cannot
        be read or is damaged.
        """
        numbers = self._fillers(rows, flips)
        return {
            name: np.stack([self.member(int(row), int(number)) for row, number in zip(rows, slot, strict=True)])
            for name, slot in zip(self.specs, numbers, strict=True)
        }

    def requests(self, rows: Rows, flips: Flips | None = None) -> tuple[Requests, NDArray[np.int64]]:
        """Plan the reads of some rows; also return the number of the member for each panel and row [panels, m].

        Raises IndexError for a row that is not in the set.
        """
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self._keys):
            wrong = rows.min() if rows.min() < 0 else rows.max()
            raise IndexError(f"row {wrong}: expected 0 to {len(self._keys) - 1}")
        fillers = self._fillers(rows, flips)
        return self._table.requests(rows, fillers, self.storage.gap_bytes), fillers

    def member(self, row: int, number: int) -> Array:
        """Read the stored array [*stored_shape], stored dtype, of a row's member; read it again if it is damaged.

        Raises DamagedMemberError for a checksum or length that differs from the index, UserError if it cannot be read.
        """
        _, spec, places = self._members[number]
        name, start, size = self.tars[self._shards[row]], int(places.offset[row]), int(places.size[row])
        for last in (False, True):
            try:
                content = self.storage.read(name, start, size)
                if len(content) != size:
                    raise ValueError(f"the file ends after {len(content)} of {size} bytes")
                if crc32(content) != places.crc32[row]:
                    raise ValueError("checksum differs: the file is damaged")
                return spec.decode(content)
            except OSError as error:
                raise self.failure(row, number, error) from error
            except ValueError as error:
                self.storage.invalidate(name, start, size)
                if last:
                    raise self.failure(row, number, error) from error
        raise AssertionError

    def failure(self, row: int, number: int, error: Exception) -> UserError:
        """Create the error for a member that could not be read (OSError) or is damaged."""
        panel, _, places = self._members[number]
        name, start, size = self.tars[self._shards[row]], int(places.offset[row]), int(places.size[row])
        where = f"{join(self.location, name)}: {panel} of {self.key(row)}, bytes {start} to {start + size}"
        if isinstance(error, OSError):
            advice = "check the server" if is_url(self.location) else f"run hms-dist verify --shards {self.location}"
            if error.errno == errno.EMFILE:
                advice = "raise the limit of open files (ulimit -n)"
            return UserError(f"{where}: cannot be read ({error}); {advice}")
        return DamagedMemberError(f"{where}: {error}; run hms-dist verify --repair --shards {self.location} --data DIR")

    def key(self, row: int) -> str:
        """Return the key of a row."""
        return str(self._keys[row])

    def close(self) -> None:
        """Release threads, memory, open tars and connections; they are acquired again by the next read."""
        self.worker_pool.close()
        self.slots.clear()
        self.storage.close()

    def _fillers(self, rows: Rows, flips: Flips | None) -> NDArray[np.int64]:
        """Number of the member for each panel and row [panels, m]."""
        if flips is None:
            return np.repeat(self._plain[:, None], len(rows), axis=1)
        return np.where(flips, self._flipped[:, None], self._plain[:, None])
