"""Canvas and augmentation of a pass as one CUDA graph.

Composing and augmenting a pass of the 16th place takes 147 operations of torch, some of which launch many kernels. In a
graph they are one launch: the host draws the augmentations, starts a copy of each panel and one of all numbers, and
replays.
Canvases that draw panels from signals are composed without a graph.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmenter import Augmenter
from hms_dist.canvas.augment.groups import GroupedRows
from hms_dist.canvas.augment.padded import PaddedSteps
from hms_dist.canvas.compose import Canvas
from hms_dist.core.errors import first_line
from hms_dist.core.logging import LOG

Bools = NDArray[np.bool_]


class FixedPass:
    """Composes and augments passes of `num_rows` rows from memory that is allocated once.

    `panels`: a pass of stored panels, for their shapes. `reverses`: whether rows may be reversed in time.
    """

    def __init__(
        self, canvas: Canvas, augmenter: Augmenter, panels: Mapping[str, Tensor], num_classes: int,
        device: torch.device, *, reverses: bool,
    ) -> None:  # fmt: skip
        self._canvas, self._device = canvas, device
        shown = {name: panels[name] for name in canvas.panels}
        self._panels = {name: torch.zeros(one.shape, dtype=one.dtype, device=device) for name, one in shown.items()}
        num_rows = len(panels[canvas.panels[0]])
        self._steps = PaddedSteps(augmenter, num_rows)
        self._shape = num_rows, num_classes
        sizes = [num_rows * canvas.flips, num_rows * reverses, num_rows * num_classes, self._steps.size]
        self._ends = np.cumsum(sizes)
        self._flat = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        self._flips, self._reversals, self._targets, self._tables = torch.split(self._flat, sizes)

    def fill(
        self, panels: Mapping[str, Tensor], targets: NDArray[np.float64], rows: GroupedRows, *,
        flips: Bools | None, reversals: Bools | None, seed: int, epoch: int,
    ) -> bool:  # fmt: skip
        """Draw the augmentations of a pass, and start copies of its panels and numbers to the device.

        `targets`: float64 [num_rows, classes]. `flips`, `reversals`: rows to flip and to reverse in time, bool
        [num_rows]; None: no row. Returns False, and copies nothing, if more rows than expected drew an augmentation.
        """
        flat = np.zeros(self._ends[-1])
        parts = np.split(flat, self._ends[:-1])
        if not self._steps.fill(parts[3], rows, seed=seed, epoch=epoch):
            return False
        if flips is not None:
            parts[0][:] = flips
        if reversals is not None:
            parts[1][:] = reversals
        parts[2][:] = targets.ravel()
        if len(flat):
            numbers = torch.from_numpy(flat)
            self._flat.copy_(numbers.pin_memory() if self._device.type == "cuda" else numbers, non_blocking=True)
        for name, there in self._panels.items():
            there.copy_(panels[name], non_blocking=True)
        return True

    @torch.no_grad()
    def compute(self) -> tuple[Tensor, Tensor]:
        """Return images, float32 [num_rows, 1, height, width], and targets, float64 [num_rows, classes].

        Operations and shapes do not depend on the pass, and none waits for the device.
        """
        flips = self._flips != 0 if len(self._flips) else None
        reversals = self._reversals != 0 if len(self._reversals) else None
        images = self._canvas(self._panels, flips, reversals)
        return self._steps.apply(self._tables, images, self._targets.view(self._shape))


class GraphedInputs:
    """Computes the images and targets of passes of `num_rows` rows by a CUDA graph, captured at the first of them."""

    def __init__(
        self, canvas: Canvas, augmenter: Augmenter, num_rows: int, device: torch.device, *, reverses: bool
    ) -> None:
        self._canvas, self._augmenter, self._num_rows = canvas, augmenter, num_rows
        self._device, self._reverses = device, reverses
        self._fixed: FixedPass | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: tuple[Tensor, Tensor] | None = None
        self._failed = bool(canvas.signals)

    def __call__(
        self, panels: Mapping[str, Tensor], targets: NDArray[np.float64], rows: GroupedRows, *,
        flips: Bools | None, reversals: Bools | None, seed: int, epoch: int,
    ) -> tuple[Tensor, Tensor] | None:  # fmt: skip
        """Return images and targets as `FixedPass.compute`, valid until the next call; None if the pass needs to be
        computed without the graph.

        Arguments as for `FixedPass.fill`; panels are in page-locked memory, which must not change before copies end.
        Images are float32 [num_rows, 1, height, width], targets float64 [num_rows, classes].
        """
        if self._failed or len(rows.rows) != self._num_rows:
            return None
        if self._fixed is None:
            self._fixed = FixedPass(
                self._canvas, self._augmenter, panels, targets.shape[1], self._device, reverses=self._reverses
            )
        filled = self._fixed.fill(panels, targets, rows, flips=flips, reversals=reversals, seed=seed, epoch=epoch)
        if not filled:
            return None
        if self._graph is None:
            self._capture(self._fixed)
        if self._graph is not None:
            self._graph.replay()
        return self._outputs

    def _capture(self, fixed: FixedPass) -> None:
        """Capture a pass; if it cannot be captured, log a warning and do not try again."""
        stream = torch.cuda.current_stream()
        try:
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(stream)
            with torch.cuda.stream(side):
                fixed.compute()  # creates what is kept between passes
                with _waiting_is_an_error():
                    fixed.compute()
            stream.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may allocate memory
                outputs = fixed.compute()
        except Exception as error:  # normalisations and augmentations of plug-ins may do anything
            LOG.warning("no CUDA graph of canvas and augmentation: they cannot be recorded (%s)", first_line(error))
            torch.cuda.set_stream(stream)  # a failed capture leaves its own
            torch.cuda.synchronize()
            self._failed, self._fixed = True, None
        else:
            self._graph, self._outputs = graph, outputs


@contextmanager
def _waiting_is_an_error() -> Iterator[None]:
    """Let torch raise RuntimeError where the host would wait for the GPU.

    A capture would fail there, and a failed one leaves torch's CUDA generator in a state that torch.compile rejects.
    """
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
