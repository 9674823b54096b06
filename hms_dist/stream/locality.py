"""Locality: an order of rows whose neighbours stand next to each other in the tars, for storage where a read is slow.

On a local disk a random read of one sample costs what any other does, and the full shuffle of `plan` is best. Over a
network file system or an object store every request waits (tens of milliseconds), so rows that lie side by side are
worth reading together. What it costs is mixing: `mixing` says how much.

    rows in the order of the tars   | 0 1 2 3 | 4 5 6 7 | 8 9 ...    cut into blocks of block_rows
    blocks shuffled                 | 8 9 a b | 0 1 2 3 | ...        another order each epoch
    windows                         rows of window_blocks blocks in a row shuffled together (1: not at all)
    lanes                           the whole cut into num_lanes equal parts; each step takes as many rows of each
"""

from dataclasses import dataclass

import numpy as np

from hms_dist.keyed import keyed_hash
from hms_dist.shards.index import Rows

_PHASE, _BLOCKS, _WITHIN = 5, 6, 7
"""Streams of keyed draws: where the first cut is, the order of the blocks, the order in a window."""


@dataclass(frozen=True, kw_only=True)
class LocalityConfig:
    """How far an epoch's order follows the order of the tars."""

    block_rows: int = 8
    """Selected rows next to each other that stay together; the last block of an epoch's cut may be shorter, and
    the first. 1: none do, a full shuffle."""
    window_blocks: int = 1
    """Blocks whose rows are shuffled together; 1: the rows of a block stay in their order. More than 1 mixes better
    and needs a reader that keeps a window's bytes."""
    num_lanes: int = 1
    """Places of the epoch that every step takes rows from, as many of each: divides global_batch. As many lanes as
    groups: each group reads on in one lane, and a rank reads nothing of the others'."""

    def __post_init__(self) -> None:
        for name in ("block_rows", "window_blocks", "num_lanes"):
            if getattr(self, name) < 1:
                raise ValueError(f"locality.{name}: expected at least 1, found {getattr(self, name)}")

    def check_batch(self, global_batch: int) -> None:
        """Refuse lanes that cannot give equally many rows to a step. Raises ValueError."""
        if global_batch % self.num_lanes:
            raise ValueError(
                f"locality.num_lanes: expected a divisor of global_batch ({global_batch}), found {self.num_lanes}"
            )


def local_order(rows: Rows, locality: LocalityConfig, *, seed: int, epoch: int) -> Rows:
    """`rows`, ascending as the tars hold them, in the order of their shuffled blocks and windows.

    A permutation, another one each epoch; the cuts between blocks move too, so that a row's neighbours change.
    """
    phase = int(keyed_hash(seed, _PHASE, epoch) % np.uint64(locality.block_rows))
    block = (np.arange(len(rows)) + phase) // locality.block_rows
    num_blocks = int(block[-1]) + 1 if len(rows) else 0
    place = np.empty(num_blocks, np.int64)
    place[np.argsort(keyed_hash(seed, _BLOCKS, epoch, np.arange(num_blocks)), kind="stable")] = np.arange(num_blocks)
    window = place[block] // locality.window_blocks
    within = rows if locality.window_blocks == 1 else keyed_hash(seed, _WITHIN, epoch, rows)
    return rows[np.lexsort((within, window))]


def deal(rows: Rows, num_lanes: int, global_batch: int) -> Rows:
    """`rows`, whole steps of them, so that step s takes rows s*c to (s+1)*c of each of `num_lanes` equal parts.

    c = `global_batch` / `num_lanes`; a step's rows stand lane by lane.
    """
    return rows.reshape(num_lanes, -1, global_batch // num_lanes).swapaxes(0, 1).reshape(-1)
