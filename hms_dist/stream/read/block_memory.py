"""Storage that reads whole blocks and caches the most recent ones, for the order of `locality`."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from hms_dist.shards.index import Index
from hms_dist.shards.schema import JSON_MEMBER
from hms_dist.stream.read.storage import URL_DEPTH, LocalFiles, Storage
from hms_dist.stream.rows.locality import block_numbers


class BlockMemory:
    """A `storage.Storage` on top of another one: reads whole blocks of a file, and caches the blocks used last.

    A block that several threads request at the same time is read once.
    """

    def __init__(self, storage: Storage, bounds: Mapping[str, NDArray[np.int64]], num_kept: int) -> None:
        """`bounds`: for each file, first byte of each block, and the end of the last. `num_kept`: blocks to cache."""
        direct = isinstance(storage, LocalFiles) and storage.direct
        self.depth, self.gap_bytes = URL_DEPTH if direct else storage.depth, storage.gap_bytes
        self._storage, self._bounds, self._num_kept = storage, bounds, num_kept
        self._blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = Lock()

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """See Storage."""
        numbers = self._numbers(name, start, size)
        skipped = start - int(self._bounds[name][numbers.start])
        return b"".join([self._block(name, number, cancelled) for number in numbers])[skipped : skipped + size]

    def invalidate(self, name: str, start: int, size: int) -> None:
        """See Storage."""
        with self._lock:
            for number in self._numbers(name, start, size):
                self._blocks.pop((name, number), None)
        self._storage.invalidate(name, start, size)

    def close(self) -> None:
        """See Storage."""
        with self._lock:
            self._blocks.clear()
        self._storage.close()

    def _numbers(self, name: str, start: int, size: int) -> range:
        """Numbers of the blocks that contain a range, which is inside the blocks of the file."""
        first, last = np.searchsorted(self._bounds[name][1:-1], (start, start + size - 1), side="right")
        return range(int(first), int(last) + 1)

    def _block(self, name: str, number: int, cancelled: Event | None) -> bytes:
        mine: Future[bytes] = Future()
        with self._lock:
            found = self._blocks.setdefault((name, number), mine)
            self._blocks.move_to_end((name, number))
            while len(self._blocks) > self._num_kept:
                self._blocks.popitem(last=False)
        if found is mine:
            self._fetch(name, number, mine, cancelled)
        return found.result()

    def _fetch(self, name: str, number: int, block: "Future[bytes]", cancelled: Event | None) -> None:
        """Read a block into its future. A failed read is not cached, so that the next request tries again."""
        start, end = self._bounds[name][number : number + 2].tolist()
        try:
            block.set_result(self._storage.read(name, start, end - start, cancelled))
        except BaseException as error:
            with self._lock:
                self._blocks.pop((name, number), None)
            block.set_exception(error)


def block_bounds(
    index: Index, tars: Sequence[str], members: Sequence[str], block_rows: int
) -> dict[str, NDArray[np.int64]]:
    """For each tar, the first byte of each of `block_numbers`' blocks, and the end of the last sample: [blocks + 1].

    `tars`: names by shard; `members`: all members of a sample, from which the end of a sample is computed.
    """
    shards, blocks = index.ids("shard"), block_numbers(index, block_rows)
    starts = index.member(JSON_MEMBER).offset
    ends = np.max([index.member(name).offset + index.member(name).size for name in members], axis=0)
    begins = np.diff(blocks, prepend=-1) > 0
    bounds = {}
    for shard, name in enumerate(tars):
        here = shards == shard
        bounds[name] = np.append(starts[here & begins], ends[here].max(initial=0))
    return bounds
