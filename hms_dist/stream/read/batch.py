"""What a loader is asked for and what it gives."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.stream.read.slots import Slot


@dataclass(frozen=True)
class Request:
    """Rows to read, and the groups that damaged ones are replaced within."""

    rows: NDArray[np.int64]
    flips: NDArray[np.bool_] | None = None
    """Which rows [n] are shown with left and right exchanged: they get the panels that the reader swaps."""
    places: NDArray[np.int64] | None = None
    """Place of each row in its step; rows of one group have neighbouring places. None: all are one group, in order."""
    group_size: int = 0
    """Rows of a group; 0: as many as there are rows."""
    num_own: int | None = None
    """The first so many rows are the rank's own, the others their partners in mixes. None: all."""


@dataclass(frozen=True)
class Batch:
    """The stored panels of the rows of one request, on the host: valid until the next batch is asked for."""

    request: Request
    rows: NDArray[np.int64]
    """The rows asked for, replacements in place of damaged ones."""
    flips: NDArray[np.bool_] | None
    """As asked for, those of the replacements in place of those of damaged rows."""
    panels: dict[str, torch.Tensor]
    """Panel -> [n, *stored_shape]; bits packed in uint8."""
    slot: Slot = field(repr=False)
    """The memory they lie in."""

    def to(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The panels on a device. Copies to a GPU may outlast the call; their memory is not reused before they end."""
        panels = {name: tensor.to(device, non_blocking=True) for name, tensor in self.panels.items()}
        if device.type == "cuda":
            self.slot.mark_copied()
        return panels
