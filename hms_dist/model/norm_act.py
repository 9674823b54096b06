"""Batch norm by groups, drop-path, shortcut and activation in one operator: y = act(shortcut + keep * norm(x)).

Each group of rows is normalised by its own mean and variance, which are merged in float64 from those of its rows. For
groups that are split over ranks, sums are collected in a table and all-reduced, forward and backward. The forward pass
reads the activations twice (moments, then all else at once) and the backward pass four times, for any combination of
options. The operators use the plain arithmetic of this file on a CPU, and the kernels of `norm_moments_kernels` and
`norm_act_kernels` on a GPU.

Rows are the outermost dimension of `x`: [rows * places, channels], contiguous, for channels-last images, or
[rows * places, channels, elements] for others.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.operators import operator
from hms_dist.model.pass_rows import PassRows

ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.Identity: 0, nn.GELU: 1, nn.SiLU: 2, nn.ReLU: 3, nn.Hardswish: 4,
}  # fmt: skip
"""Activation -> its number in the operators."""
GELU = ACTIVATIONS[nn.GELU]
_ranks: list[Any] = []
"""The process group that sums statistics of groups split over ranks; empty: one rank."""


def set_process_group(group: Any | None) -> None:
    """Set the process group that sums statistics of groups split over ranks; None: one rank.

    Nothing else may use it.
    """
    _ranks[:] = [] if group is None else [group]


def activation_of(module: nn.Module) -> int | None:
    """Return the number of an activation; None if the operators do not support it."""
    if type(module) is nn.GELU and module.approximate != "none":
        return None
    return ACTIVATIONS.get(type(module))


def norm_act(
    x: Tensor, norm: nn.Module, rows: PassRows, *, act: int, shortcut: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """Compute act(shortcut + keep * norm(x)) by groups, in the shape of `x`; `keep` [rows].

    Any float dtype; the result has that of `x`. `norm`: a `GroupBatchNorm`, into which the statistics of the pass are
    written.
    """
    mean, rstd = moments_of(x, norm, rows)
    return _with_moments(x, norm, mean, rstd, shortcut, keep, layout_of(x, rows), act)


def stored_norm_act(
    x: Tensor, norm: Any, num_rows: int, *, act: int, shortcut: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """Compute the same with the running statistics of a batch norm, for inference; `x` [num_rows * places, channels],
    any float dtype."""
    mean, rstd = norm.running_mean[None], (norm.running_var[None] + norm.eps).rsqrt()
    piece = torch.zeros(num_rows, dtype=torch.int32, device=x.device)
    layout = (piece, piece, None, 0, num_rows, len(x) // num_rows)
    return _with_moments(x, norm, mean, rstd, shortcut, keep, layout, act)


def _with_moments(
    x: Tensor, norm: Any, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    layout: tuple[Any, ...], act: int,
) -> Tensor:  # fmt: skip
    scale = None if keep is None else keep.reshape(-1).to(mean.dtype)
    out: Tensor = torch.ops.hms_dist.norm_act(x, *affine_of(norm, mean), mean, rstd, shortcut, scale, *layout, act)
    return out


def moments_of(x: Tensor, norm: Any, rows: PassRows) -> tuple[Tensor, Tensor]:
    """Compute mean and 1 / deviation of each group [pieces, channels], and write them and the variance into `norm`.

    `x`: any float dtype. The results have the dtype of the norm's weight.
    """
    like = norm.running_mean if norm.weight is None else norm.weight
    moments = torch.ops.hms_dist.norm_moments(x.detach(), like.detach(), norm.eps, *layout_of(x, rows))
    norm.statistics.copy_(moments)
    mean, rstd, _ = moments.unbind()
    return mean, rstd


def affine_of(norm: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return scale and shift [channels] of a norm; 1 and 0, typed as `like` [pieces, channels], if it has none."""
    if norm.weight is None:
        return torch.ones_like(like[0]), torch.zeros_like(like[0])
    return norm.weight, norm.bias


def layout_of(x: Tensor, rows: PassRows) -> tuple[Tensor, Tensor, Tensor | None, int, int, int]:
    """Return the groups of the rows of `x` [rows * places, ...], any dtype, as arguments of the operators: starts,
    piece, slots, num_slots, m, places."""
    return rows.starts, rows.piece, rows.slots, rows.num_slots, rows.group_size, len(x) // rows.num_rows


def _moments(
    x: Tensor, like: Tensor, eps: float, starts: Tensor, piece: Tensor, slots: Tensor | None, num_slots: int,
    group_size: int, places: int,
) -> Tensor:  # fmt: skip
    """Compute mean, 1 / sqrt(variance + eps) and unbiased variance of each group: [3, pieces, channels]."""
    if has_kernels(x):
        from hms_dist.model import norm_moments_kernels  # needs Triton

        if slots is None:
            return norm_moments_kernels.moments(x, starts, places, group_size, eps)
        sums = norm_moments_kernels.row_moments(x, starts, places)
    else:
        sums = _row_moments(x, like, starts, piece, places)
    mean, square = (summed(sums, slots, num_slots) / group_size).unbind(1)
    variance = (square - mean * mean).clamp(min=0)
    count = group_size * places * (x.shape[2] if x.dim() == 3 else 1)
    return torch.stack([mean, (variance + eps).rsqrt(), variance * (count / max(count - 1, 1))]).to(like.dtype)


def _row_moments(x: Tensor, like: Tensor, starts: Tensor, piece: Tensor, places: int) -> Tensor:
    """Sum mean, and variance + mean^2, over the rows of each piece: float64 [pieces, 2, channels]."""
    variance, mean = torch.var_mean(by_row(x, places).to(like.dtype), dim=(1, 3), correction=0)
    mean, variance = mean.double(), variance.double()
    return _by_piece(torch.stack([mean, variance + mean * mean], dim=1), starts, piece)


def _moments_shapes(x: Tensor, like: Tensor, eps: float, starts: Tensor, *_: Any) -> Tensor:
    return like.new_empty(3, len(starts) - 1, x.shape[1])


def apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    starts: Tensor, piece: Tensor, slots: Tensor | None, num_slots: int, group_size: int, places: int, act: int,
) -> Tensor:  # fmt: skip
    """Apply the operator with given moments `mean` and `rstd` [pieces, channels]; output as `x`."""
    if has_kernels(x):
        from hms_dist.model import norm_act_kernels

        return norm_act_kernels.apply(x, weight, bias, mean, rstd, shortcut, keep, piece, places, act)
    return plain_apply(x, weight, bias, mean, rstd, shortcut, keep, piece, places, act)


def differentiate(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, starts: Tensor, piece: Tensor, slots: Tensor | None, num_slots: int, group_size: int,
    places: int, act: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of x (including its moments), weight, bias and shortcut ([0] without one).

    Each has the dtype of its tensor. Those of weight and bias are sums over this rank's rows.
    """
    given = (x, weight, bias, mean, rstd, shortcut, keep)
    if has_kernels(x):
        from hms_dist.model import norm_act_kernels as kernels

        sums, d_sum, d_shortcut = kernels.backward_sums(grad, *given, starts, piece, places, act)
    else:
        sums, d_sum, d_shortcut = _backward_sums(grad, *given, starts, piece, places, act)
    d_bias, d_weight = sums.sum(0).to(weight.dtype).unbind()
    sums = summed(sums, slots, num_slots).to(mean.dtype)
    share = 1 / (group_size * places * (x.shape[2] if x.dim() == 3 else 1))
    if has_kernels(x):
        # the gradient of the shortcut contains the slope of the activation already
        d_x = kernels.backward_apply(d_sum, *given, sums, share, piece, places, 0 if shortcut is not None else act)
    else:
        d_x = _backward_apply(d_sum, x, weight, mean, rstd, sums * share, piece, places)
    return d_x, d_weight.clone(), d_bias.clone(), d_shortcut


def summed(sums: Tensor, slots: Tensor | None, num_slots: int) -> Tensor:
    """Sum values [pieces, ...], any float dtype, over all ranks for pieces of split groups; others are unchanged."""
    if slots is None or not _ranks:
        return sums
    table = sums.new_zeros(num_slots, *sums.shape[1:])
    table.index_add_(0, slots, sums)
    torch.distributed.all_reduce(table, group=_ranks[0])
    return table[slots]


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels support `x`, any float dtype: only [rows * places, channels]."""
    return x.dim() == 2 and gpus.is_for(x) and gpus.are_fast()


def _backward_shapes(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else torch.empty_like(shortcut)
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias), d_shortcut


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.num_slots, ctx.group_size, ctx.places, ctx.act = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    d_x, d_weight, d_bias, d_shortcut = torch.ops.hms_dist.norm_act_backward(
        grad.contiguous(), *tensors, ctx.num_slots, ctx.group_size, ctx.places, ctx.act
    )
    d_added = None if tensors[5] is None else d_shortcut
    return d_x, d_weight, d_bias, None, None, d_added, *[None] * 8


operator("norm_moments", _moments, _moments_shapes)
operator("norm_act", apply, lambda x, *_: torch.empty_like(x), _differentiate, _setup)
operator("norm_act_backward", differentiate, _backward_shapes)


def plain_apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    piece: Tensor, places: int, act: int,
) -> Tensor:  # fmt: skip
    """Apply the operator in plain torch, on any device; the reference of the kernels. Shapes as `apply`."""
    result = _before_act(by_row(x, places), weight, bias, mean, rstd, shortcut, keep, piece, places)
    return _reshaped(_activated(result, act).to(x.dtype), x)


def _backward_sums(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, starts: Tensor, piece: Tensor, places: int, act: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Sum the norm's gradient, and its product with the normalised x, over each piece: float64 [pieces, 2, channels].

    Also returns the gradient with respect to the activation's input (by row), and that of the shortcut.
    """
    rows = by_row(x, places)
    d_sum = by_row(grad, places).to(weight.dtype)
    if act:
        d_sum = d_sum * _slope(_before_act(rows, weight, bias, mean, rstd, shortcut, keep, piece, places), act)
    d_norm = d_sum if keep is None else d_sum * keep.view(-1, 1, 1, 1)
    unit = (rows.to(weight.dtype) - _of_pieces(mean, piece)) * _of_pieces(rstd, piece)
    sums = torch.stack([d_norm.sum((1, 3)), (d_norm * unit).sum((1, 3))], dim=1).double()
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else d_sum.to(shortcut.dtype, copy=True).view(x.shape)
    return _by_piece(sums, starts, piece), d_norm, d_shortcut


def _backward_apply(
    d_norm: Tensor, x: Tensor, weight: Tensor, mean: Tensor, rstd: Tensor, means: Tensor, piece: Tensor, places: int
) -> Tensor:
    unit = (by_row(x, places).to(weight.dtype) - _of_pieces(mean, piece)) * _of_pieces(rstd, piece)
    d_x = d_norm - _of_pieces(means[:, 0], piece) - unit * _of_pieces(means[:, 1], piece)
    return _reshaped((d_x * _of_pieces(weight * rstd, piece)).to(x.dtype), x)


def _reshaped(values: Tensor, like: Tensor) -> Tensor:
    """Reshape `values` to the shape of `like`. Autograd does not treat it as a view, so it may be changed in place."""
    shaped: Tensor = torch.ops.aten._unsafe_view(values, like.shape)
    return shaped


def by_row(x: Tensor, places: int) -> Tensor:
    """Reshape [rows * places, channels(, elements)], any dtype, to [rows, places, channels, elements]."""
    return x.reshape(-1, places, x.shape[1], x.shape[2] if x.dim() == 3 else 1)


def _by_piece(sums: Tensor, starts: Tensor, piece: Tensor) -> Tensor:
    """Sum values [rows, ...] over the rows of each piece."""
    return sums.new_zeros(len(starts) - 1, *sums.shape[1:]).index_add_(0, piece.long(), sums)


def _before_act(
    rows: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, piece: Tensor, places: int,
) -> Tensor:  # fmt: skip
    factor = weight * rstd
    result = rows.to(weight.dtype) * _of_pieces(factor, piece) + _of_pieces(bias - mean * factor, piece)
    if keep is not None:
        result = result * keep.view(-1, 1, 1, 1)
    return result if shortcut is None else result + by_row(shortcut, places)


def _of_pieces(table: Tensor, piece: Tensor) -> Tensor:
    """Expand [pieces, channels] to rows: [rows, 1, channels, 1]."""
    return table[piece.long(), None, :, None]


def _activated(z: Tensor, act: int) -> Tensor:
    functions = (lambda z: z, functional.gelu, functional.silu, functional.relu, functional.hardswish)
    return functions[act](z)


def _slope(z: Tensor, act: int) -> Tensor:
    """Compute the derivative of an activation."""
    if act == ACTIVATIONS[nn.GELU]:
        return torch.special.ndtr(z) + z * (-0.5 * z * z).exp() / math.sqrt(2 * math.pi)
    if act == ACTIVATIONS[nn.SiLU]:
        share = torch.sigmoid(z)
        return share * (1 + z * (1 - share))
    if act == ACTIVATIONS[nn.ReLU]:
        return (z > 0).to(z.dtype)
    return torch.where(z < -3, 0.0, torch.where(z <= 3, z / 3 + 0.5, 1.0)).to(z.dtype)
