"""The forward and backward pass of a network as CUDA graphs: launches that the host would make one by one are replayed.

A network of many small layers leaves a GPU waiting for the host. A graph holds all kernels of a pass of fixed shapes;
replaying it costs the host next to nothing. Passes of other shapes, of groups on several ranks, and evaluation run as
they do without graphs. A network that cannot be recorded runs on without them, if it is not compiled: a failed capture
leaves torch's CUDA generator in a state that torch.compile does not accept, and such a run ends; `compile_mode: null`
trains it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hms_dist.core.errors import first_line
from hms_dist.core.logging import LOG
from hms_dist.model.pass_rows import PassRows, Pieces

NUM_WARM_UPS = 11
"""Passes before the capture, as DDP wants them."""


class GraphedNetwork(nn.Module):
    """`model`, whose training passes of one kind are replayed once `capture` has recorded them."""

    def __init__(self, model: nn.Module, rows: PassRows) -> None:
        super().__init__()
        self.model = model
        self._rows = rows
        self._graphed: list[Any] = []  # a list, so that its parameters are not counted twice
        self._pieces: Pieces | None = None
        self._shapes: list[torch.Size] = []
        self.inputs: tuple[Tensor, ...] = ()
        """Of the last training pass."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Answers of the model; on a GPU replayed where that was recorded."""
        if self.training and torch.is_grad_enabled():
            self.inputs = inputs
            shapes = [tensor.shape for tensor in inputs]
            if self._graphed and self._rows.pieces == self._pieces and shapes == self._shapes:
                replayed: Tensor = self._graphed[0](*inputs)
                return replayed
        answers: Tensor = self.model(*inputs)
        return answers

    def capture(self) -> None:
        """Record the pass that came last, under the autocast that is on; log a warning if it cannot be recorded."""
        inputs = tuple(tensor.detach().clone() for tensor in self.inputs)
        shell = _Shell(self.model)
        torch.cuda.empty_cache()
        try:
            graphed = torch.cuda.make_graphed_callables(shell, inputs, num_warmup_iters=NUM_WARM_UPS)
        except Exception as error:  # whatever a layer does that a graph cannot hold
            LOG.warning("no CUDA graphs: the network cannot be recorded (%s)", first_line(error))
            torch.cuda.synchronize()
            return
        self._graphed[:] = [graphed]
        self._pieces, self._shapes = self._rows.pieces, [tensor.shape for tensor in inputs]


class _Shell(nn.Module):
    """A module around the network, whose `forward` torch replaces."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        answers: Tensor = self.model(*inputs)
        return answers
