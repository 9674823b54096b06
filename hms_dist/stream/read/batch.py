"""What a loader is asked for and what it gives."""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.stream.read.slots import Slot


@dataclass(frozen=True)
class Request:
    """A group of rows to read."""

    rows: NDArray[np.int64]
    flips: NDArray[np.bool_] | None = None
    """Which rows [m] are shown with left and right exchanged: they get the panels that the reader swaps."""


@dataclass(frozen=True)
class Batch:
    """The stored panels of one group of rows, on the host: valid until the next batch is asked for."""

    rows: NDArray[np.int64]
    """The rows asked for, stand-ins in place of damaged ones."""
    flips: NDArray[np.bool_] | None
    """As asked for, those of the stand-ins in place of those of damaged rows."""
    panels: dict[str, torch.Tensor]
    """Panel -> [m, *stored_shape]; bits packed in uint8."""
    slot: Slot = field(repr=False)
    """The memory they lie in."""

    def to(self, device: torch.device) -> dict[str, torch.Tensor]:
        """The panels on a device. Copies to a GPU may outlast the call; their memory is not reused before they end."""
        panels = {name: tensor.to(device, non_blocking=True) for name, tensor in self.panels.items()}
        if device.type == "cuda":
            self.slot.mark_copied()
        return panels
