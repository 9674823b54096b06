"""Requests to a loader, and the batches that it returns."""

from dataclasses import dataclass, field
from functools import cache

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

        Copies to a GPU are asynchronous. They run beside the work on the batch before, and work that is queued later
        waits for them. The memory is not reused before they end.
        """
        if device.type != "cuda":
            return {name: tensor.to(device) for name, tensor in self.panels.items()}
        return _copies(device).start(self)


class _Copies:
    """Copies of batches to a GPU, in a stream of their own.

    A copy waits for all work that was queued before the copy of the previous batch, so that the GPU holds at most two
    batches that are not used yet.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._before: torch.cuda.Event | None = None

    def start(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Queue the copy of a batch; the current stream waits for it."""
        current = torch.cuda.current_stream(self._device)
        if self._before is not None:
            self._stream.wait_event(self._before)
        self._before = current.record_event()
        with torch.cuda.stream(self._stream):
            panels = {name: tensor.to(self._device, non_blocking=True) for name, tensor in batch.panels.items()}
            batch.slot.mark_copied()
        current.wait_stream(self._stream)
        for tensor in panels.values():
            tensor.record_stream(current)  # its memory is not reused before the work on it has ended
        return panels


@cache
def _copies(device: torch.device) -> _Copies:
    return _Copies(device)
