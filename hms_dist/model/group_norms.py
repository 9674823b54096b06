"""Batch norm by groups of rows, so that the result of a step does not depend on passes and ranks.

The rows of a step are split into groups of m, and each group is normalised by its own statistics, for any number of
groups in a pass and any number of ranks that share a group (`norm_act`). Running statistics are updated once a step,
with the mean over the step's groups:

    running = (1 - momentum) * running + momentum * mean over groups of the group's statistics

A forward pass writes the statistics of its groups into each norm. Recomputing a pass, as activation checkpointing
does, writes the same values again.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hms_dist.core.errors import UserError
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.norm_act import activation_of, norm_act
from hms_dist.model.pass_rows import PassRows


class GroupBatchNorm(_BatchNorm):
    """A batch norm that uses groups in training and running statistics in evaluation.

    It has the parameters and buffers of the norm that it replaces, with the same names, and the dropout and activation
    of timm's norms.
    """

    def __init__(self, norm: _BatchNorm, rows: PassRows) -> None:
        super().__init__(1, norm.eps, norm.momentum, affine=False, track_running_stats=False)
        self.num_features, self.affine = norm.num_features, norm.affine
        self.track_running_stats = norm.track_running_stats
        self._parameters.update(norm._parameters)
        self._buffers.update(norm._buffers)
        self.drop: nn.Module = getattr(norm, "drop", nn.Identity())
        self.act: nn.Module = getattr(norm, "act", nn.Identity())
        self.rows = rows
        self._tables: dict[int, Tensor] = {}
        self.statistics = torch.empty(0)
        """Statistics of the pass: mean, 1 / deviation and unbiased variance of each piece, [3, pieces, channels]."""
        self.train(norm.training)

    def begin_pass(self, num_pieces: int) -> None:
        """Select the memory for the statistics of a pass; the same memory for the same number of pieces."""
        if num_pieces not in self._tables:
            like: Any = self.running_mean if self.weight is None else self.weight
            self._tables[num_pieces] = like.detach().new_zeros(3, num_pieces, self.num_features)
        self.statistics = self._tables[num_pieces]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` [rows (or rows times tokens), channels, ...], any float dtype."""
        if not self.training:
            uses_batch = self.running_mean is None
            x = functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, uses_batch, 0.0, self.eps
            )
            out: Tensor = self.act(self.drop(x))
            return out
        known = activation_of(self.act) if type(self.drop) is nn.Identity else None
        y = self._by_groups(x, known or 0)
        result: Tensor = y if known is not None else self.act(self.drop(y))
        return result

    def _by_groups(self, x: Tensor, act: int) -> Tensor:
        if x.dim() == 4 and (x.is_cuda or x.is_contiguous(memory_format=torch.channels_last)):
            return rows_to_nchw(norm_act(nchw_to_rows(x), self, self.rows, act=act), *x.shape[2:])
        flat = x.contiguous() if x.dim() == 2 else x.reshape(*x.shape[:2], -1)
        return norm_act(flat, self, self.rows, act=act).view(x.shape)

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept any number of dimensions."""


def group_batch_norms(model: nn.Module, rows: PassRows) -> None:
    """Replace every batch norm of `model` by a `GroupBatchNorm`, in place; the names of its state dict do not change.

    Raises UserError for a layer whose statistics cannot be computed by group.
    """
    batch_norms(model)
    norms: dict[str, Any] = {name: norm for name, norm in model.named_modules() if isinstance(norm, _BatchNorm)}
    for name, norm in norms.items():
        if norm.weight is None and norm.running_mean is None:
            raise UserError(f"model: batch norm {name} has neither parameters nor statistics; choose another model")
    replace_modules(model, {norm: GroupBatchNorm(norm, rows) for norm in norms.values()})


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> None:
    """Replace modules inside `model`, in place."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is not None and child in replacements:
                parent._modules[name] = replacements[child]


class GroupNorms:
    """Updates the running statistics of a model's batch norms, by group. Norms in evaluation mode stay frozen.

    `model` may be wrapped by DDP (with `broadcast_buffers=False`) or compiled. One step is `begin_step`, then for
    each of this rank's passes `begin_pass`, a forward pass and `after_pass`, then `end_step` on every rank (or
    `cancel_step` on every rank). A norm that a forward pass uses several times contributes its last use.
    """

    def __init__(self, model: nn.Module, rows: PassRows) -> None:
        self._rows = rows
        self._norms = [norm for norm in model.modules() if isinstance(norm, GroupBatchNorm)]
        self._active: list[GroupBatchNorm] = []
        self._total = torch.empty(0)
        self._momenta: dict[tuple[object, ...], Tensor] = {}

    def begin_step(self) -> None:
        """Start a step: reset the sums of the groups' statistics."""
        self._active = [norm for norm in self._norms if norm.training and norm.running_mean is not None]
        self._total = torch.zeros(0)

    def begin_pass(self) -> None:
        """Give every norm the memory for the statistics of the current pass."""
        for norm in self._norms:
            norm.begin_pass(len(self._rows.starts) - 1)

    def after_pass(self) -> None:
        """Add the statistics of the last forward pass, once a pass; a split group counts where its first row is."""
        if self._active:
            tables = torch.cat([norm.statistics[::2] for norm in self._active], dim=2).double()
            found = torch.einsum("kpc,p->kc", tables, self._rows.owned)
            self._total = self._total + found if len(self._total) else found

    @torch.no_grad()
    def end_step(self, num_groups: int, all_reduce: Callable[[Tensor], object] | None = None) -> None:
        """Update the running statistics with the mean over the step's groups, and count one batch.

        `num_groups`: number of groups of the whole step. `all_reduce`: sums a float64 tensor over the ranks, in place;
        None: there is one rank. It is called once if there are active norms, else never.
        """
        if not self._active:
            return
        if all_reduce is not None:
            all_reduce(self._total)
        buffers = [_buffers(norm) for norm in self._active]
        momentum = self._momentum()
        old = torch.stack([torch.cat(kind) for kind in zip(*buffers, strict=True)]).double()
        new = (1 - momentum) * old + momentum * (self._total / num_groups)
        sizes = [norm.num_features for norm in self._active]
        for kind, values in zip(zip(*buffers, strict=True), new.to(buffers[0][0].dtype), strict=True):
            torch._foreach_copy_(list(kind), values.split(sizes))  # one kernel instead of hundreds
        torch._foreach_add_([_count(norm) for norm in self._active], 1)
        self._active = []

    def cancel_step(self) -> None:
        """End a step whose update is skipped: the running statistics do not change."""
        self._active = []

    def _momentum(self) -> Tensor:
        """Momentum of each channel of all active norms; cached, because copying it to a GPU synchronises."""
        momenta = tuple(float(norm.momentum or 0.0) for norm in self._active)
        sizes = tuple(norm.num_features for norm in self._active)
        key = (momenta, sizes, self._total.device)
        if key not in self._momenta:
            values = torch.repeat_interleave(torch.tensor(momenta, dtype=torch.float64), torch.tensor(sizes))
            self._momenta[key] = values.to(self._total.device)
        return self._momenta[key]


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of `model` with running statistics, in the order of its modules.

    Raises UserError for other norms with running statistics, and for cumulative means.
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
