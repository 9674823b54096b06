"""gelu(norm(x)) and the convolution behind it as one operator, which keeps x alone for the backward pass.

Autograd would keep what the convolution reads, as large as x. Here it is computed again from x where it is needed:
one more pass over the activations, about half as much to keep.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model.convolutions import conv_gradients
from hms_dist.model.norm_act import apply, differentiate, moments_of, rows_of
from hms_dist.model.operators import operator


def norm_conv(x: Tensor, norm: nn.BatchNorm2d, conv: nn.Conv2d) -> Tensor:
    """`conv(gelu(norm(x)))` of pictures (batch, channels, height, width), for a convolution without bias.

    Moves the running statistics of `norm` as it does itself in training.
    """
    moments = moments_of(rows_of(x), norm)
    kernel = conv.weight.to(x.dtype)
    out = torch.ops.hms_dist.norm_conv(
        x.permute(0, 2, 3, 1).contiguous(), norm.weight, norm.bias, *moments, kernel, conv.stride[0], conv.groups
    )
    return out.permute(0, 3, 1, 2)


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, stride: int, groups: int
) -> Tensor:
    """The convolution, padded by half its kernel; pictures are (batch, height, width, channels)."""
    y = _activated(x, weight, bias, mean, rstd)
    if kernel.shape[-1] == 1:
        return functional.linear(y, kernel.flatten(1))
    out = functional.conv2d(y.permute(0, 3, 1, 2), kernel, None, stride, kernel.shape[-1] // 2, groups=groups)
    return out.permute(0, 2, 3, 1).contiguous()


def _forward_shapes(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, stride: int, groups: int
) -> Tensor:
    height, width = ((length - 1) // stride + 1 for length in x.shape[1:3])
    return x.new_empty(x.shape[0], height, width, kernel.shape[0])


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, stride: int,
    groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight, bias and kernel."""
    y = _activated(x, weight, bias, mean, rstd)
    if kernel.shape[-1] == 1:
        d_kernel = (grad.flatten(0, 2).T @ y.flatten(0, 2)).view_as(kernel)
        d_y = grad @ kernel.flatten(1)
    else:
        places, read = grad.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2)
        d_places, d_kernel = conv_gradients(places, read, kernel, stride=stride, groups=groups)
        d_y = d_places.permute(0, 2, 3, 1).contiguous()
    del y
    rows, d_rows = x.flatten(0, 2), d_y.flatten(0, 2)
    d_x, d_weight, d_bias, _ = differentiate(
        d_rows, rows, weight, bias, mean, rstd, None, None, x.shape[1] * x.shape[2], True
    )
    return d_x.view_as(x), d_weight, d_bias, d_kernel.contiguous()


def _backward_shapes(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor,
      *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_kernel = kernel.new_empty(kernel.shape)
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias), d_kernel


def _activated(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor) -> Tensor:
    rows = apply(x.flatten(0, 2), weight, bias, mean, rstd, None, None, x.shape[1] * x.shape[2], True)
    return rows.view_as(x)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.stride, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    d_x, d_weight, d_bias, d_kernel = torch.ops.hms_dist.norm_conv_backward(
        grad.contiguous(), *ctx.saved_tensors, ctx.stride, ctx.groups
    )
    return d_x, d_weight, d_bias, None, None, d_kernel, None, None


operator("norm_conv", _forward, _forward_shapes, _differentiate, _setup)
operator("norm_conv_backward", _backward, _backward_shapes)
