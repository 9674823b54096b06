"""The rows of one pass through a network: their groups, and the keys of their random draws.

The B rows of a step are split into groups of m consecutive rows. A pass computes whole groups, or a rank's parts of
groups that are split over ranks. A run of rows of one group is called a piece. Layers that depend on groups (batch
norm) or are random (dropout) read a `PassRows` object, which the training step fills before each pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.core.keyed import keyed_hash

_PURPOSE = 0x6D6F64656C
"""First key ("model"), so that these draws differ from others with the same keys."""


@dataclass(frozen=True)
class Pieces:
    """The groups of the rows of a pass."""

    num_rows: int
    group_size: int
    """Number of rows of a whole group, m."""
    starts: tuple[int, ...]
    """First row of each piece, then `num_rows`."""
    owned: tuple[bool, ...]
    """Whether each piece contains the first row of its group; each group of a step is counted in that piece."""
    slots: tuple[int, ...] | None = None
    """For each piece, the number of its group among the `num_slots` groups that are split over ranks. None: all groups
    of the pass are whole."""
    num_slots: int = 0


class PassRows:
    """The rows of the current pass, shared by the layers of one network; set by `begin`."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._tables: dict[Pieces, tuple[Tensor, Tensor, Tensor | None, Tensor]] = {}
        self._words: dict[int, Tensor] = {}
        self.pieces: Pieces | None = None
        """None before the first pass."""
        self.num_rows, self.num_slots, self.group_size = 0, 0, 1
        self.starts = torch.empty(0, dtype=torch.int32, device=device)
        """First row of each piece, then the number of rows: int32 [pieces + 1]."""
        self.piece = torch.empty(0, dtype=torch.int32, device=device)
        """Piece of each row, int32 [rows]."""
        self.slots: Tensor | None = None
        """Number of each piece's split group: int64 [pieces]; None without split groups."""
        self.owned = torch.empty(0, dtype=torch.float64, device=device)
        """1 for pieces with the first row of their group, else 0: float64 [pieces]."""
        self.words = torch.empty(0, 2, dtype=torch.int32, device=device)
        """Key of each row's draws, int32 [rows, 2]; the same memory for all passes of the same number of rows."""

    def begin(self, pieces: Pieces, words: Tensor) -> None:
        """Set the rows of the next pass: their groups, and the keys, int32 [rows, 2], of their draws (`draw_words`)."""
        if pieces not in self._tables:
            self._tables[pieces] = self._on_device(pieces)
        self.starts, self.piece, self.slots, self.owned = self._tables[pieces]
        self.pieces, self.num_rows, self.group_size = pieces, pieces.num_rows, pieces.group_size
        self.num_slots = pieces.num_slots
        if len(words) != len(self.words):
            self.words = self._words.setdefault(len(words), torch.empty_like(words, device=self._device))
        self.words.copy_(words.pin_memory() if self._device.type == "cuda" else words, non_blocking=True)

    def _on_device(self, pieces: Pieces) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Tables on the device; cached by the caller, because copies to a GPU synchronise."""
        lengths = np.diff(pieces.starts)
        slots = None if pieces.slots is None else torch.tensor(pieces.slots, device=self._device)
        return (
            torch.tensor(pieces.starts, dtype=torch.int32, device=self._device),
            torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)).to(self._device),
            slots,
            torch.tensor(pieces.owned, dtype=torch.float64, device=self._device),
        )


def draw_words(seed: int, epoch: int, step: int, places: NDArray[np.int64] | Sequence[int]) -> Tensor:
    """Compute the keys of the draws of rows at `places` (0 to B - 1) of a step: int32 [rows, 2], on the host.

    `step`: within the epoch. A key depends on these arguments alone, so a row has the same draws on any rank and in any
    pass.
    """
    words = keyed_hash(_PURPOSE, seed, epoch, step, np.asarray(places, np.int64))
    return torch.from_numpy(words.view(np.int32).reshape(-1, 2).copy())


def whole_groups(num_groups: int, group_size: int) -> Pieces:
    """Return the pieces of a pass of whole groups."""
    starts = range(0, num_groups * group_size + 1, group_size)
    return Pieces(num_groups * group_size, group_size, tuple(starts), (True,) * num_groups)
