"""Requests to a loader, and the batches that it returns."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.stream.read.slots import Slot


@dataclass(frozen=True)
class Request:
    """Rows to read, and their groups, within which damaged rows are replaced."""

    rows: NDArray[np.int64]
    """Row numbers [n]."""
    flips: NDArray[np.bool_] | None = None
    """Rows [n] to flip (left and right exchanged), for which the reader reads the flipped panels. None: no row."""
    places: NDArray[np.int64] | None = None
    """Place [n] of each row in its step; rows of one group have consecutive places. None: all rows are one group."""
    group_size: int = 0
    """Number of rows of a group; 0: all rows."""
    num_own: int | None = None
    """Number of the rank's own rows, which come first; the others are their partners in mixes. None: all rows."""


@dataclass(frozen=True)
class Batch:
    """The stored panels of the rows of one request, on the host; valid until the next batch is requested."""

    request: Request
    rows: NDArray[np.int64]
    """The requested rows [n], with replacements of damaged rows."""
    flips: NDArray[np.bool_] | None
    """The requested flips [n], with those of the replacements. None: no row is flipped."""
    panels: dict[str, torch.Tensor]
    """Panel -> [n, *stored_shape]; bits packed in uint8."""
    slot: Slot = field(repr=False)
    """The memory of the panels."""

    def to(self, device: torch.device) -> dict[str, torch.Tensor]:
        """Copy the panels, name -> [m, *stored_shape] in the stored dtype, to a device.

        Copies to a GPU are asynchronous; the memory is not reused before they end.
        """
        panels = {name: tensor.to(device, non_blocking=True) for name, tensor in self.panels.items()}
        if device.type == "cuda":
            self.slot.mark_copied()
        return panels
