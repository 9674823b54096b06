"""What became of a step, read one step late on a GPU, which so never waits for the host to look at a number.

All ranks read the same sums, so they agree on what follows: a loss that is no number ends the run with the rows named,
a request to stop that any rank has heard ends it at the same step on all.
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
"""Rows that a message names at most."""


class AsyncScalars:
    """A small tensor that is being copied to the host beside the device's work."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._event = tensor, None
        if tensor.device.type == "cuda":
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    @property
    def is_here(self) -> bool:
        """True if there is nothing to wait for."""
        return self._event is None

    def get(self) -> list[float]:
        """Its values, as soon as they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        values: list[float] = self._host.tolist()
        return values


@dataclass(frozen=True)
class StepResult:
    """One step's sums over all ranks, and what is needed to explain them."""

    overall: int
    """Number of the step within the run, from 0."""
    sums: AsyncScalars
    """[mean loss over the global batch, number of ranks that were asked to stop]."""
    row_losses: Tensor
    """Weighted loss of each of this rank's rows, on the device."""
    rows: NDArray[np.int64]
    """Those rows, of the shard set."""

    @property
    def loss(self) -> float:
        """The mean loss over the global batch; waits for the step."""
        return self.sums.get()[0]


class NonFiniteLossGuard:
    """Looks at every outcome, on a GPU one step late; every rank calls its methods at the same steps."""

    def __init__(self, world: World, name_of: Callable[[int], str]) -> None:
        """`name_of` gives the key of a row."""
        self._world, self._name_of = world, name_of
        self._waiting: StepResult | None = None
        self.stop_asked = False
        """True once some rank was asked to stop by a step that has been looked at."""

    def add(self, outcome: StepResult) -> None:
        """Look at the outcome before this one, and at this one if it is here. Raises JobError as `settle` does."""
        self.settle()
        self._waiting = outcome
        if outcome.sums.is_here:
            self.settle()

    def settle(self) -> None:
        """Look at the last outcome too. Raises JobError naming the rows if its loss is no number."""
        outcome, self._waiting = self._waiting, None
        if outcome is None:
            return
        loss, num_asked = outcome.sums.get()
        if not math.isfinite(loss):
            raise JobError(
                f"the loss is {loss} at step {outcome.overall + 1}{self._culprits(outcome)}; look at these rows with "
                "hms-dist show, lower optim.lr, or set optim.max_grad_norm"
            )
        self.stop_asked = self.stop_asked or num_asked > 0

    def _culprits(self, outcome: StepResult) -> str:
        rows = outcome.rows[~torch.isfinite(outcome.row_losses).cpu().numpy()]
        rows, _ = self._world.gather_rows(rows, rows)
        names = [self._name_of(int(row)) for row in rows[:MAX_NAMED]]
        more = f" and {len(rows) - len(names)} more" if len(rows) > len(names) else ""
        return f" on rows {', '.join(names)}{more}" if names else ""
