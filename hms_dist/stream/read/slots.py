"""The memory of batches, reused within a stream and by the next streams."""

from collections.abc import Sequence
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.shards.schema import PanelSpec


class Slot:
    """The memory of one batch: an array [rows, *stored_shape] for each panel, page-locked if `pin`."""

    def __init__(self, specs: Sequence[PanelSpec], *, pin: bool) -> None:
        self._specs, self._pin = specs, pin
        self._arrays: list[NDArray[Any]] = []
        self._tensors: list[torch.Tensor] = []
        """Tensors of the last requested number of rows."""
        self._copied: Any = None

    def tensors(self, num_rows: int) -> list[torch.Tensor]:
        """Return a tensor [num_rows, *stored_shape], stored dtype, of each panel; memory that is too small is
        reallocated."""
        if not self._arrays or len(self._arrays[0]) < num_rows:
            self._arrays = [_empty((num_rows, *spec.stored_shape), spec, self._pin) for spec in self._specs]
            self._tensors = []
        if not self._tensors or len(self._tensors[0]) != num_rows:
            # slices of NumPy arrays, because slicing a torch tensor releases the GIL
            self._tensors = [torch.from_numpy(array[:num_rows]) for array in self._arrays]
        return self._tensors

    def mark_copied(self) -> None:
        """Record that copies to a GPU were started; the memory must not change before they end."""
        self._copied = self._copied or torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    def is_free(self) -> bool:
        """Whether all copies to a GPU have ended."""
        return self._copied is None or bool(self._copied.query())

    def wait_until_free(self) -> None:
        """Wait for copies to a GPU."""
        if self._copied is not None:
            self._copied.synchronize()


def _empty(shape: tuple[int, ...], spec: PanelSpec, pin: bool) -> NDArray[Any]:
    dtype = torch.from_numpy(np.empty(0, spec.stored_dtype)).dtype
    array: NDArray[Any] = torch.empty(shape, dtype=dtype, pin_memory=pin).numpy()
    return array


class SlotPool:
    """A pool of slots for the streams of one reader: an epoch reuses the memory of the previous one."""

    def __init__(self, specs: Sequence[PanelSpec]) -> None:
        self._specs = specs
        self._spare: dict[bool, list[Slot]] = {False: [], True: []}
        self._lock = Lock()

    def take(self, number: int, *, pin: bool) -> list[Slot]:
        """Take `number` slots; a GPU may still copy from some of them."""
        with self._lock:
            spare = self._spare[pin]
            taken, spare[:] = spare[:number], spare[number:]
        return taken + [Slot(self._specs, pin=pin) for _ in range(number - len(taken))]

    def give_back(self, slots: Sequence[Slot], *, pin: bool) -> None:
        """Return slots to which nothing writes any more."""
        with self._lock:
            self._spare[pin] += slots

    def clear(self) -> None:
        """Free the memory of streams that have ended."""
        with self._lock:
            for spare in self._spare.values():
                spare.clear()
