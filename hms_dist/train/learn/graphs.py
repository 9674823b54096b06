"""CUDA graphs of a network's forward and backward pass.

With many small layers a GPU waits for the host, which launches kernels one by one. A graph holds all kernels of a pass
of fixed shapes, and replaying it costs the host almost no time. Passes of other shapes, passes of groups that are split
over ranks, and evaluation run without graphs. A network that cannot be captured trains without graphs unless it is
compiled: a failed capture leaves torch's CUDA generator in a state that torch.compile rejects, so a compiled run fails;
`compile_mode: null` trains it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from hms_dist.core.errors import first_line
from hms_dist.core.logging import LOG
from hms_dist.model.pass_rows import PassRows, Pieces

NUM_WARM_UPS = 11
"""Passes before the capture; DDP needs 11."""


class GraphedNetwork(nn.Module):
    """A model whose training passes of one shape are replayed after `capture`."""

    def __init__(self, model: nn.Module, rows: PassRows) -> None:
        super().__init__()
        self.model = model
        self._rows = rows
        self._graphed: list[Any] = []  # a list, so that its parameters are not counted twice
        self._pieces: Pieces | None = None
        self._shapes: list[torch.Size] = []
        self.inputs: tuple[Tensor, ...] = ()
        """Inputs of the last training pass."""

    def forward(self, *inputs: Tensor) -> Tensor:
        """Compute the output of the model for inputs [rows, ...], any dtype; replays the graph captured for this kind
        of pass, if any."""
        if self.training and torch.is_grad_enabled():
            self.inputs = inputs
            shapes = [tensor.shape for tensor in inputs]
            if self._graphed and self._rows.pieces == self._pieces and shapes == self._shapes:
                replayed: Tensor = self._graphed[0](*inputs)
                return replayed
        outputs: Tensor = self.model(*inputs)
        return outputs

    def capture(self) -> None:
        """Capture the last training pass, under the current autocast; log a warning if it cannot be captured."""
        inputs = tuple(tensor.detach().clone() for tensor in self.inputs)
        shell = _Shell(self.model)
        torch.cuda.empty_cache()
        try:
            graphed = torch.cuda.make_graphed_callables(shell, inputs, num_warmup_iters=NUM_WARM_UPS)
        except Exception as error:  # layers may do anything that a graph cannot hold
            LOG.warning("no CUDA graphs: the network cannot be recorded (%s)", first_line(error))
            torch.cuda.synchronize()
            return
        self._graphed[:] = [graphed]
        self._pieces, self._shapes = self._rows.pieces, [tensor.shape for tensor in inputs]


class _Shell(nn.Module):
    """A wrapper of the network, because torch replaces the `forward` of the module that it captures."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        outputs: Tensor = self.model(*inputs)
        return outputs
