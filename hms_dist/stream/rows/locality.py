"""Locality: an order of rows that reads the tars block by block, for storage with high latency per request.

On a local disk random reads are cheap, and the full shuffle of `epoch_plan` is best. Over a network file system or an
object store each request takes tens of milliseconds, so adjacent samples of a tar are read with one request
(`block_memory` sends it and keeps samples for later). The cost is weaker mixing, measured by `mixing`.

    blocks    0 1 2 3 | 4 5 6 7 | 8 9 ...   each tar is split into blocks of block_rows samples, the same in all epochs
    shuffled  8 9 a b | 0 1 2 3 | ...       blocks in a different order each epoch, with the selected rows of a block
    windows   2 9 a 0 8 3 1 b | ...         the rows of window_blocks consecutive blocks, shuffled together
    lanes     the order is split into num_lanes equal parts; every step takes the same number of next rows of each
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.keyed import keyed_hash
from hms_dist.shards.index import Index, Rows

_BLOCKS, _WITHIN = 5, 6
"""Streams of keyed draws: the order of the blocks, the order in a window."""


@dataclass(frozen=True, kw_only=True)
class LocalityConfig:
    """How closely an epoch's order follows that of the tars. Each rank caches 2 * window_blocks * num_lanes blocks: by
    default 2,048 samples, about 0.8 GB with the default panels."""

    block_rows: int = 32
    """Adjacent samples of a tar that are read together, whether selected or not."""
    window_blocks: int = 4
    """Number of blocks whose rows are shuffled together. 1: the rows of a block keep their order."""
    num_lanes: int = 8
    """Number of positions in the epoch from which every step takes equally many rows; divides global_batch. If it is a
    multiple of the number of groups, only blocks at the ends of lanes are read by two ranks."""

    def __post_init__(self) -> None:
        for name in ("block_rows", "window_blocks", "num_lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"locality.{name}: expected at least 1, found {getattr(self, name)}")

    @property
    def num_kept(self) -> int:
        """Number of blocks to cache: the open window of each lane, and as many that are finished or come next."""
        return 2 * self.window_blocks * self.num_lanes

    def check_batch(self, global_batch: int) -> None:
        """Raise ValueError for lanes that cannot contribute equally many rows to a step."""
        if global_batch % self.num_lanes:
            raise ValueError(
                f"locality.num_lanes: expected a divisor of global_batch ({global_batch}), found {self.num_lanes}"
            )


def block_numbers(index: Index, block_rows: int) -> NDArray[np.int64]:
    """Block of each sample [samples], from 0, in tar order; a tar's last block may be shorter."""
    shards = index.ids("shard")
    place = np.arange(len(shards)) - np.searchsorted(shards, shards)
    return np.cumsum(place % block_rows == 0) - 1


def local_order(index: Index, rows: Rows, locality: LocalityConfig, *, seed: int, epoch: int) -> Rows:
    """Sort `rows` [n] by their shuffled blocks and windows: a permutation, a different one each epoch."""
    blocks = block_numbers(index, locality.block_rows)[rows]
    _, place = np.unique(keyed_hash(seed, _BLOCKS, epoch, blocks), return_inverse=True)
    within = rows if locality.window_blocks == 1 else keyed_hash(seed, _WITHIN, epoch, rows)
    return rows[np.lexsort((within, place // locality.window_blocks))]


def interleave_lanes(rows: Rows, num_lanes: int, global_batch: int) -> Rows:
    """Interleave `rows` [steps * global_batch] so that step s takes rows s*c to (s+1)*c of each of `num_lanes` equal
    parts.

    c = `global_batch` / `num_lanes`; the rows of a step are ordered by lane.
    """
    return rows.reshape(num_lanes, -1, global_batch // num_lanes).swapaxes(0, 1).reshape(-1)
