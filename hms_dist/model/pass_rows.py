"""The rows of one pass through a network: to which groups they belong, and the keys of their random draws.

A step's B rows are cut into groups of m neighbours. A pass computes whole groups, or the parts that a rank has of
groups that lie on several ranks: a run of rows of one group is a piece. Layers whose arithmetic depends on groups
(batch norm) or that draw random numbers (dropout) read this object, which the training step fills before each pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.core.keyed import keyed_hash

_PURPOSE = 0x6D6F64656C
"""First key ("model"): keeps these draws apart from others keyed by the same numbers."""


@dataclass(frozen=True)
class Pieces:
    """How the rows of a pass lie in groups."""

    num_rows: int
    group_size: int
    """Rows of a whole group, m."""
    starts: tuple[int, ...]
    """First row of each piece, then `num_rows`."""
    owned: tuple[bool, ...]
    """Which pieces hold the first row of their group: each group of a step is counted where its first row is."""
    slots: tuple[int, ...] | None = None
    """For each piece, the number of its group among the `num_slots` groups that lie on several ranks. None: all groups
    of the pass are whole."""
    num_slots: int = 0


class PassRows:
    """What the layers of one network know of the rows of the current pass. Shared by its layers; filled by `begin`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tables: dict[Pieces, tuple[Tensor, Tensor, Tensor | None, Tensor]] = {}
        self._words: dict[int, Tensor] = {}
        self.pieces: Pieces | None = None
        """None: no pass has begun, and layers refuse to train."""
        self.num_rows, self.num_slots, self.group_size = 0, 0, 1
        self.starts = torch.empty(0, dtype=torch.int32, device=device)
        """int32 [pieces + 1]."""
        self.piece = torch.empty(0, dtype=torch.int32, device=device)
        """Piece of each row, int32 [rows]."""
        self.slots: Tensor | None = None
        """int64 [pieces]; None without groups on several ranks."""
        self.owned = torch.empty(0, dtype=torch.float64, device=device)
        """1 for pieces that are counted here, else 0: float64 [pieces]."""
        self.words = torch.empty(0, 2, dtype=torch.int32, device=device)
        """Key of each row's draws, int32 [rows, 2]; the same memory for passes of as many rows."""

    def begin(self, pieces: Pieces, words: Tensor) -> None:
        """Fill in the rows of the next pass: how they lie in groups, and the keys of their draws (`draw_words`)."""
        if pieces not in self._tables:
            self._tables[pieces] = self._on_device(pieces)
        self.starts, self.piece, self.slots, self.owned = self._tables[pieces]
        self.pieces, self.num_rows, self.group_size = pieces, pieces.num_rows, pieces.group_size
        self.num_slots = pieces.num_slots
        if len(words) != len(self.words):
            self.words = self._words.setdefault(len(words), torch.empty_like(words, device=self._device))
        self.words.copy_(words.pin_memory() if self._device.type == "cuda" else words, non_blocking=True)

    def _on_device(self, pieces: Pieces) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Made once a kind of pass: a copy to a GPU waits for it."""
        lengths = np.diff(pieces.starts)
        slots = None if pieces.slots is None else torch.tensor(pieces.slots, device=self._device)
        return (
            torch.tensor(pieces.starts, dtype=torch.int32, device=self._device),
            torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)).to(self._device),
            slots,
            torch.tensor(pieces.owned, dtype=torch.float64, device=self._device),
        )


def draw_words(seed: int, epoch: int, step: int, places: NDArray[np.int64] | Sequence[int]) -> Tensor:
    """Keys of the draws of rows at `places` (0 to B - 1) of a step: int32 [rows, 2], on the host.

    `step` counts within the epoch. A key depends on nothing else, so any rank draws the same for a row in any pass.
    """
    words = keyed_hash(_PURPOSE, seed, epoch, step, np.asarray(places, np.int64))
    return torch.from_numpy(words.view(np.int32).reshape(-1, 2).copy())


def whole_groups(num_groups: int, group_size: int) -> Pieces:
    """Pieces of a pass of whole groups."""
    starts = range(0, num_groups * group_size + 1, group_size)
    return Pieces(num_groups * group_size, group_size, tuple(starts), (True,) * num_groups)
