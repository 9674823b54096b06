"""Storage that reads whole blocks and remembers the last ones: what `locality`'s order is made for."""

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
    """A storage (`storage.Storage`) over another: each block of a file is one read, and stays until others push it
    out. Blocks that several threads ask for at the same time are read once."""

    def __init__(self, storage: Storage, bounds: Mapping[str, NDArray[np.int64]], num_kept: int) -> None:
        """`bounds`: for each file the byte at which each block begins, and the end of the last. `num_kept`: blocks."""
        direct = isinstance(storage, LocalFiles) and storage.direct
        self.depth, self.gap_bytes = URL_DEPTH if direct else storage.depth, storage.gap_bytes
        self._storage, self._bounds, self._num_kept = storage, bounds, num_kept
        self._blocks: OrderedDict[tuple[str, int], Future[bytes]] = OrderedDict()
        self._lock = Lock()

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """As Storage."""
        numbers = self._numbers(name, start, size)
        skipped = start - int(self._bounds[name][numbers.start])
        return b"".join([self._block(name, number, cancelled) for number in numbers])[skipped : skipped + size]

    def forget(self, name: str, start: int, size: int) -> None:
        """As Storage."""
        with self._lock:
            for number in self._numbers(name, start, size):
                self._blocks.pop((name, number), None)
        self._storage.forget(name, start, size)

    def close(self) -> None:
        """As Storage."""
        with self._lock:
            self._blocks.clear()
        self._storage.close()

    def _numbers(self, name: str, start: int, size: int) -> range:
        """Blocks that hold a range; none before the first or after the last is asked for."""
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
        """Read a block into its future; what fails is forgotten, so that the next who asks tries again."""
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
    """Bytes of each tar [blocks + 1] at which `block_numbers`' blocks begin, and the end of its last sample.

    `tars`: names by shard; `members`: all members of a sample, so that the end is known.
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
