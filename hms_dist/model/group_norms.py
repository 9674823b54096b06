"""Batch norm with the group as its unit, so that a step's result does not depend on who computed what.

A training step's rows are cut into groups; each normalises by its own statistics, which a forward pass of
one group does anyway. Running statistics, though, move once a forward pass and see one rank's groups only.
Here they move once a step, to the mean over the step's groups on all ranks:

    running = (1 - momentum) * running + momentum * mean over groups of the group's statistics

To get at a group's statistics without a second pass over its activations, the momentum is 1 during a step:
after a forward pass the running buffers *are* that group's statistics (the variance unbiased, as torch keeps
it). Computing a group again, as activation checkpointing does, writes the same numbers again.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hms_dist.core.errors import UserError


class GroupNorms:
    """Keeps the running statistics of a model's batch norms, by group. Norms in evaluation mode stay frozen.

    `model` may be wrapped by DDP (made with `broadcast_buffers=False`) or compiled. One step is
    `begin_step`, then for each of this rank's groups a forward pass and `after_group`, then `end_step` on
    every rank (or `cancel_step` on every rank).
    A norm that a forward pass uses several times contributes its last use.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the batch norms of `model`. Raises UserError if one keeps statistics that cannot be split."""
        self._norms = batch_norms(model)
        self._active: list[_BatchNorm] = []
        self._momenta: list[float] = []
        self._saved = self._total = self._counts = torch.empty(0)
        self._shares: dict[tuple[object, ...], Tensor] = {}

    def begin_step(self) -> None:
        """Put the true running statistics aside and let each forward pass write its own."""
        self._active = [norm for norm in self._norms if norm.training]
        if not self._active:
            return
        self._momenta = [float(norm.momentum or 0.0) for norm in self._active]
        self._counts = torch.stack([_count(norm) for norm in self._active])
        self._saved = self._statistics()
        self._total = torch.zeros_like(self._saved)
        for norm in self._active:
            norm.momentum = 1.0

    def after_group(self) -> None:
        """Count in the group that the last forward pass computed. Call it once a group."""
        if self._active:
            self._total += self._statistics()

    def end_step(self, num_groups: int, all_reduce: Callable[[Tensor], object] | None = None) -> None:
        """Move the running statistics by the mean over the step's groups; count one batch.

        `num_groups` is the number of groups of the whole step. `all_reduce` sums a float64 vector over the
        ranks, in place; None: there is one rank. It is called once, and not at all without active norms.
        """
        if not self._active:
            return
        if all_reduce is not None:
            all_reduce(self._total)
        momentum = self._momentum()
        self._finish((1 - momentum) * self._saved + momentum * (self._total / num_groups), batches=1)

    def cancel_step(self) -> None:
        """Put the running statistics back as `begin_step` found them: for a step whose update is skipped."""
        if self._active:
            self._finish(self._saved, batches=0)

    def _statistics(self) -> Tensor:
        """Running mean and variance of every active norm in one float64 vector.

        Float64, so that sums over groups do not depend on how the groups were dealt to ranks.
        """
        buffers = [buffer for norm in self._active for buffer in _buffers(norm)]
        return torch.cat(buffers).to(torch.float64)

    def _momentum(self) -> Tensor:
        """Momentum of each number of `_statistics`; made once, since taking it to a GPU waits for that."""
        sizes = [2 * norm.num_features for norm in self._active]
        key = (*self._momenta, *sizes, self._saved.device)
        if key not in self._shares:
            shares = torch.repeat_interleave(torch.tensor(self._momenta, dtype=torch.float64), torch.tensor(sizes))
            self._shares[key] = shares.to(self._saved.device)
        return self._shares[key]

    @torch.no_grad()
    def _finish(self, statistics: Tensor, batches: int) -> None:
        buffers = [buffer for norm in self._active for buffer in _buffers(norm)]
        values = torch.split(statistics.to(buffers[0].dtype), [len(buffer) for buffer in buffers])
        counts = [_count(norm) for norm in self._active]
        torch._foreach_copy_(buffers, values)  # one kernel; a step's hundred copies would be as many
        torch._foreach_copy_(counts, (self._counts + batches).unbind())
        for norm, momentum in zip(self._active, self._momenta, strict=True):
            norm.momentum = momentum
        self._active = []


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Batch norms of `model` that keep running statistics, in the order of its modules.

    Raises UserError for a norm whose running statistics are not those of a batch norm, or a cumulative mean.
    """
    norms = []
    for name, module in model.named_modules():
        if getattr(module, "running_var", None) is None:
            continue
        if not isinstance(module, _BatchNorm):
            raise UserError(
                f"model: layer {name} ({type(module).__name__}) keeps running statistics that cannot be taken "
                "by group; choose a model with batch norm, or one whose norms keep none"
            )
        if module.momentum is None:
            raise UserError(
                f"model: batch norm {name} has momentum None (a cumulative mean), expected a number in (0, 1]; "
                "give it one"
            )
        norms.append(module)
    return norms


def _buffers(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    if norm.running_mean is None or norm.running_var is None:
        raise RuntimeError("a batch norm lost its running statistics during a step")
    return norm.running_mean, norm.running_var


def _count(norm: _BatchNorm) -> Tensor:
    if norm.num_batches_tracked is None:
        raise RuntimeError("a batch norm lost its counter of batches")
    return norm.num_batches_tracked
