"""Batch norm, drop-path, shortcut and GELU in one operator: y = gelu(shortcut + keep * norm(x)).

TinyViT's convolutions spend most of their time on what stands between them. Here the activations are read twice
(moments, then everything else at once) and backward four times, whatever is switched on. The operators are this
file's plain arithmetic on the CPU and the kernels of `norm_act_kernels` on a GPU. Rows are all places of all pictures:
(rows, channels), contiguous.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.operators import operator


class Moments(NamedTuple):
    """Of a batch, by channel."""

    mean: Tensor
    rstd: Tensor
    """1 / sqrt(variance + eps)."""


def norm_act(
    x: Tensor, norm: nn.BatchNorm2d, *, gelu: bool, shortcut: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """`norm(x)` of pictures (batch, channels, height, width), times `keep` (batch, 1, 1, 1), plus `shortcut`, through
    GELU. In training it moves the running statistics of `norm` as the norm itself does, by the variance over n - 1.
    """
    batch, _, height, width = x.shape
    rows, added = nchw_to_rows(x), None if shortcut is None else nchw_to_rows(shortcut)
    scale = None if keep is None else keep.reshape(batch).to(norm.weight.dtype)
    moments = moments_of(rows, norm)
    out = torch.ops.hms_dist.norm_act(rows, norm.weight, norm.bias, *moments, added, scale, height * width, gelu)
    return rows_to_nchw(out, height, width)


def moments_of(rows: Tensor, norm: nn.BatchNorm2d) -> Moments:
    """Mean and deviation of each channel; moves the running statistics of `norm`."""
    mean, rstd = torch.ops.hms_dist.norm_moments(rows.detach(), norm.weight.detach(), norm.eps)
    if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
        with torch.no_grad():
            norm.num_batches_tracked.add_(1)
            momentum = float(norm.momentum or 0.0)
            variance = (rstd**-2 - norm.eps) * (len(rows) / max(len(rows) - 1, 1))
            norm.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
            norm.running_var.mul_(1 - momentum).add_(variance, alpha=momentum)
    return Moments(mean, rstd)


def _moments(x: Tensor, like: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel, in the type of `like`."""
    if x.is_cuda:
        from hms_dist.model.tiny_vit import norm_act_kernels  # needs Triton

        return norm_act_kernels.moments(x, eps)
    variance, mean = torch.var_mean(x.to(like.dtype), dim=0, correction=0)
    return mean, (variance + eps).rsqrt()


def _moments_shapes(x: Tensor, like: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(like), torch.empty_like(like)


def apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    places: int, gelu: bool,
) -> Tensor:  # fmt: skip
    """The operator on known moments; `places` is the rows of one picture."""
    if x.is_cuda:
        from hms_dist.model.tiny_vit import norm_act_kernels

        return norm_act_kernels.apply(x, weight, bias, mean, rstd, shortcut, keep, places, gelu)
    return plain_apply(x, weight, bias, mean, rstd, shortcut, keep, places, gelu)


def differentiate(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, places: int, gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x (through its moments too), weight, bias and shortcut (without one: of no rows)."""
    if x.is_cuda:
        from hms_dist.model.tiny_vit import norm_act_kernels

        return norm_act_kernels.backward(grad, x, weight, bias, mean, rstd, shortcut, keep, places, gelu)
    return plain_backward(grad, x, weight, bias, mean, rstd, shortcut, keep, places, gelu)


def _apply_shapes(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _backward_shapes(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else torch.empty_like(shortcut)
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias), d_shortcut


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.places, ctx.gelu = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    d_x, d_weight, d_bias, d_shortcut = torch.ops.hms_dist.norm_act_backward(
        grad.contiguous(), *tensors, ctx.places, ctx.gelu
    )
    return d_x, d_weight, d_bias, None, None, None if tensors[5] is None else d_shortcut, None, None, None


operator("norm_moments", _moments, _moments_shapes)
operator("norm_act", apply, _apply_shapes, _differentiate, _setup)
operator("norm_act_backward", differentiate, _backward_shapes)


def plain_apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    places: int, gelu: bool,
) -> Tensor:  # fmt: skip
    """The operator's arithmetic: the reference of the kernels, on any device."""
    unit = (x.to(weight.dtype) - mean) * rstd
    result = _before_gelu(unit, weight, bias, shortcut, _scale(keep, places))
    return (functional.gelu(result) if gelu else result).to(x.dtype)


def plain_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, places: int, gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients' arithmetic."""
    unit = (x.to(weight.dtype) - mean) * rstd
    scale = _scale(keep, places)
    d_sum = grad.to(weight.dtype)
    if gelu:
        d_sum = d_sum * _slope(_before_gelu(unit, weight, bias, shortcut, scale))
    d_norm = d_sum if scale is None else d_sum * scale
    d_bias, d_weight = d_norm.sum(0), (d_norm * unit).sum(0)
    d_x = weight * rstd * (d_norm - (d_bias + unit * d_weight) / len(x))
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else d_sum.to(shortcut.dtype, copy=True)
    return d_x.to(x.dtype), d_weight, d_bias, d_shortcut


def _before_gelu(unit: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, scale: Tensor | None) -> Tensor:
    result = unit * weight + bias
    if scale is not None:
        result = result * scale
    return result if shortcut is None else result + shortcut


def _scale(keep: Tensor | None, places: int) -> Tensor | None:
    return None if keep is None else keep.repeat_interleave(places)[:, None]


def _slope(z: Tensor) -> Tensor:
    """The derivative of GELU."""
    density = (-0.5 * z * z).exp() / math.sqrt(2 * math.pi)
    return torch.special.ndtr(z) + z * density
