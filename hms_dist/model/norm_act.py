"""Batch norm, drop-path, shortcut and GELU in one operator: y = gelu(shortcut + keep * norm(x)).

TinyViT's convolutions spend most of their time on what stands between them. The operator reads the activations twice
(statistics, then everything else at once) and backward four times, whatever is switched on. `hms_dist::norm_act` is
this file's plain arithmetic on the CPU and the kernels of `norm_act_kernels` on a GPU. Rows are all places of all
pictures: (rows, channels), contiguous.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def norm_act(
    x: Tensor, norm: nn.BatchNorm2d, *, gelu: bool, shortcut: Tensor | None = None, keep: Tensor | None = None
) -> Tensor:
    """`norm(x)` of pictures (batch, channels, height, width), times `keep` (batch, 1, 1, 1), plus `shortcut`, through
    GELU. In training it moves the running statistics of `norm` as the norm itself does, by the variance over n - 1.
    """
    batch, channels, height, width = x.shape
    rows, added = _rows(x), None if shortcut is None else _rows(shortcut)
    scale = None if keep is None else keep.reshape(batch).to(norm.weight.dtype)
    out, mean, rstd = torch.ops.hms_dist.norm_act(
        rows, norm.weight, norm.bias, added, scale, height * width, norm.eps, gelu
    )
    _move_running(norm, mean.detach(), rstd.detach(), len(rows))
    return out.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _rows(pictures: Tensor) -> Tensor:
    channels_last = pictures.permute(0, 2, 3, 1).contiguous()
    return channels_last.view(-1, channels_last.shape[-1])


@torch.no_grad()
def _move_running(norm: nn.BatchNorm2d, mean: Tensor, rstd: Tensor, num_rows: int) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = float(norm.momentum or 0.0)
    variance = (rstd**-2 - norm.eps) * (num_rows / max(num_rows - 1, 1))
    norm.running_mean.mul_(1 - momentum).add_(mean, alpha=momentum)
    norm.running_var.mul_(1 - momentum).add_(variance, alpha=momentum)


@torch.library.custom_op("hms_dist::norm_act", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, places: int, eps: float,
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Output, and mean and 1 / standard deviation of each channel; `places` is the rows of one picture."""
    if x.is_cuda:
        from hms_dist.model import norm_act_kernels  # needs Triton

        return norm_act_kernels.forward(x, weight, bias, shortcut, keep, places, eps, gelu)
    return plain_forward(x, weight, bias, shortcut, keep, places, eps, gelu)


@_forward.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, places: int, eps: float,
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.custom_op("hms_dist::norm_act_backward", mutates_args=())
def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, mean: Tensor,
    rstd: Tensor, places: int, gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight, bias and shortcut (without one: of no rows)."""
    if x.is_cuda:
        from hms_dist.model import norm_act_kernels

        return norm_act_kernels.backward(grad, x, weight, bias, shortcut, keep, mean, rstd, places, gelu)
    return plain_backward(grad, x, weight, bias, shortcut, keep, mean, rstd, places, gelu)


@_backward.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, mean: Tensor,
    rstd: Tensor, places: int, gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else torch.empty_like(shortcut)
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight), d_shortcut


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, shortcut, keep, ctx.places, _, ctx.gelu = inputs
    ctx.save_for_backward(x, weight, bias, shortcut, keep, *output[1:])
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, shortcut, keep, mean, rstd = ctx.saved_tensors
    d_x, d_weight, d_bias, d_shortcut = torch.ops.hms_dist.norm_act_backward(
        grad.contiguous(), x, weight, bias, shortcut, keep, mean, rstd, ctx.places, ctx.gelu
    )
    return d_x, d_weight, d_bias, None if shortcut is None else d_shortcut, None, None, None, None


torch.library.register_autograd("hms_dist::norm_act", _differentiate, setup_context=_setup)


def plain_forward(
    x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, places: int, eps: float,
    gelu: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The operator's arithmetic: the reference of the kernels, on any device."""
    wide = x.to(weight.dtype)
    variance, mean = torch.var_mean(wide, dim=0, correction=0)
    rstd = (variance + eps).rsqrt()
    result = _before_gelu((wide - mean) * rstd, weight, bias, shortcut, _scale(keep, places))
    return (functional.gelu(result) if gelu else result).to(x.dtype), mean, rstd


def plain_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, shortcut: Tensor | None, keep: Tensor | None, mean: Tensor,
    rstd: Tensor, places: int, gelu: bool,
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
