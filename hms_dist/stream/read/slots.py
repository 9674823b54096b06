"""The memory of batches: used again and again, by one stream after another."""

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
        """Of the rows last asked for."""
        self._copied: Any = None

    def tensors(self, num_rows: int) -> list[torch.Tensor]:
        """The tensors of the first `num_rows` rows; memory grows where it is too small."""
        if not self._arrays or len(self._arrays[0]) < num_rows:
            self._arrays = [_empty((num_rows, *spec.stored_shape), spec, self._pin) for spec in self._specs]
            self._tensors = []
        if not self._tensors or len(self._tensors[0]) != num_rows:
            # through NumPy, since slices of torch's let go of the GIL
            self._tensors = [torch.from_numpy(array[:num_rows]) for array in self._arrays]
        return self._tensors

    def mark_copied(self) -> None:
        """Remember that copies to the GPU were just begun: the memory may not change before they end."""
        self._copied = self._copied or torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record()

    def is_free(self) -> bool:
        """Whether copies to the GPU have ended."""
        return self._copied is None or bool(self._copied.query())

    def wait_until_free(self) -> None:
        """Wait for copies to the GPU."""
        if self._copied is not None:
            self._copied.synchronize()


def _empty(shape: tuple[int, ...], spec: PanelSpec, pin: bool) -> NDArray[Any]:
    dtype = torch.from_numpy(np.empty(0, spec.stored_dtype)).dtype
    array: NDArray[Any] = torch.empty(shape, dtype=dtype, pin_memory=pin).numpy()
    return array


class Slots:
    """Memory that streams of one reader use one after another: an epoch begins with that of the epoch before."""

    def __init__(self, specs: Sequence[PanelSpec]) -> None:
        self._specs = specs
        self._spare: dict[bool, list[Slot]] = {False: [], True: []}
        self._lock = Lock()

    def take(self, number: int, *, pin: bool) -> list[Slot]:
        """So many slots; a GPU may still copy what lies in some of them."""
        with self._lock:
            spare = self._spare[pin]
            taken, spare[:] = spare[:number], spare[number:]
        return taken + [Slot(self._specs, pin=pin) for _ in range(number - len(taken))]

    def give_back(self, slots: Sequence[Slot], *, pin: bool) -> None:
        """Slots that nothing writes to any more."""
        with self._lock:
            self._spare[pin] += slots

    def clear(self) -> None:
        """Let go of the memory of streams that have ended."""
        with self._lock:
            for spare in self._spare.values():
                spare.clear()
