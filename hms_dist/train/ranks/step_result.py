"""The result of a step, read one step late on a GPU, so that `.item()` never stalls it.

All ranks read the same sums, and therefore act alike: a NaN or infinite loss stops the run and lists the rows, and a
request to stop that one rank received stops all ranks at the same step.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.core.errors import JobError
from hms_dist.train.ranks.world import World

MAX_NAMED = 24
"""Largest number of rows that a message lists."""


class AsyncScalars:
    """A small tensor, copied to the host asynchronously."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def is_ready(self) -> bool:
        """Whether the values are on the host already, as for CPU tensors."""
        return self._event is None

    def get(self) -> list[float]:
        """Wait for the copy and return the values."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values


@dataclass(frozen=True)
class StepResult:
    """Sums of one step over all ranks, and the rows to list if the loss is not finite."""

    overall: int
    """Number of the step within the run, from 0."""
    sums: AsyncScalars
    """[mean loss over the global batch, number of ranks that were asked to stop]."""
    row_losses: Tensor
    """Weighted loss of each of this rank's rows, float64 [n], on the device."""
    rows: NDArray[np.int64]
    """Numbers of these rows [n] in the shard set."""

    @property
    def loss(self) -> float:
        """The mean loss over the global batch; waits for the step."""
        return self.sums.get()[0]


class NonFiniteLossGuard:
    """Checks the result of every step, on a GPU one step late; every rank calls its methods at the same steps."""

    def __init__(self, world: World, name_of: Callable[[int], str]) -> None:
        """`name_of` returns the key of a row."""
        self._world, self._name_of = world, name_of
        self._waiting: StepResult | None = None
        self.stop_asked = False
        """Whether any rank was asked to stop before a step that has been checked."""

    def add(self, result: StepResult) -> None:
        """Check the previous result, and this one if it is on the host already. Raises JobError as `settle` does."""
        self.settle()
        self._waiting = result
        if result.sums.is_ready:
            self.settle()

    def settle(self) -> None:
        """Check the last result. Raises JobError listing the rows if its loss is NaN or infinite."""
        result, self._waiting = self._waiting, None
        if result is None:
            return
        loss, num_asked = result.sums.get()
        if not math.isfinite(loss):
            raise JobError(
                f"the loss is {loss} at step {result.overall + 1}{self._non_finite_rows(result)}; look at these rows "
                "with hms-dist show, lower optim.lr, or set optim.max_grad_norm"
            )
        self.stop_asked = self.stop_asked or num_asked > 0

    def _non_finite_rows(self, result: StepResult) -> str:
        rows = result.rows[~torch.isfinite(result.row_losses).cpu().numpy()]
        rows, _ = self._world.gather_rows(rows, rows)
        names = [self._name_of(int(row)) for row in rows[:MAX_NAMED]]
        more = f" and {len(rows) - len(names)} more" if len(rows) > len(names) else ""
        return f" on rows {', '.join(names)}{more}" if names else ""
