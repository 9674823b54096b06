"""conv(gelu(norm(x))) as one operator, which saves only x for the backward pass.

Autograd would also save the input of the convolution, which is as large as x. Here the backward pass recomputes it from
x: one more pass over the activations, and about half the memory.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model.convolutions import conv_gradients
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.norm_act import GELU, apply, differentiate, layout_of, moments_of
from hms_dist.model.operators import operator
from hms_dist.model.pass_rows import PassRows


def norm_conv(x: Tensor, norm: nn.Module, conv: nn.Conv2d, rows: PassRows) -> Tensor:
    """Compute `conv(gelu(norm(x)))` of images (batch, channels, height, width), for a convolution without bias.

    Any float dtype. `norm`: a `GroupBatchNorm`, into which the statistics of the pass are written.
    """
    height, width = x.shape[2:]
    flat, kernel, (stride, _) = nchw_to_rows(x), conv.weight.to(x.dtype), conv.stride
    moments = moments_of(flat, norm, rows)
    out = torch.ops.hms_dist.norm_conv(
        flat, norm.weight, norm.bias, *moments, kernel, *layout_of(flat, rows), height, width, stride, conv.groups
    )
    return rows_to_nchw(out, _output_size(height, stride), _output_size(width, stride))


def _forward(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, starts: Tensor, piece: Tensor,
    slots: Tensor | None, num_slots: int, group_size: int, places: int, height: int, width: int, stride: int,
    groups: int,
) -> Tensor:  # fmt: skip
    """Compute the output, with padding of half the kernel; images as rows, (batch * height * width, channels)."""
    y = apply(x, weight, bias, mean, rstd, None, None, starts, piece, slots, num_slots, group_size, places, GELU)
    if kernel.shape[-1] == 1:
        return functional.linear(y, kernel.flatten(1))
    pad = kernel.shape[-1] // 2
    return nchw_to_rows(functional.conv2d(rows_to_nchw(y, height, width), kernel, None, stride, pad, groups=groups))


def _forward_shapes(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, starts: Tensor, piece: Tensor,
    slots: Tensor | None, num_slots: int, group_size: int, places: int, height: int, width: int, stride: int,
    groups: int,
) -> Tensor:  # fmt: skip
    batch = x.shape[0] // (height * width)
    return x.new_empty(batch * _output_size(height, stride) * _output_size(width, stride), kernel.shape[0])


def _backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor, starts: Tensor,
    piece: Tensor, slots: Tensor | None, num_slots: int, group_size: int, places: int, height: int, width: int,
    stride: int, groups: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Compute the gradients of x, weight, bias and kernel."""
    known = (x, weight, bias, mean, rstd, None, None, starts, piece, slots, num_slots, group_size, places, GELU)
    y = apply(*known)
    if kernel.shape[-1] == 1:
        d_kernel = (grad.T @ y).view_as(kernel)
        d_y = grad @ kernel.flatten(1)
    else:
        d_out = rows_to_nchw(grad, _output_size(height, stride), _output_size(width, stride))
        d_read, d_kernel = conv_gradients(d_out, rows_to_nchw(y, height, width), kernel, stride=stride, groups=groups)
        d_y = nchw_to_rows(d_read)
    del y
    d_x, d_weight, d_bias, _ = differentiate(d_y, *known)
    return d_x, d_weight, d_bias, d_kernel.contiguous()


def _backward_shapes(grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, kernel: Tensor,
      *_: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    d_kernel = kernel.new_empty(kernel.shape)
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias), d_kernel


def _output_size(length: int, stride: int) -> int:
    """Output size of the convolution along an axis of `length`."""
    return (length - 1) // stride + 1


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.num_slots, ctx.group_size, ctx.places, ctx.height, ctx.width, ctx.stride, ctx.groups = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    d_x, d_weight, d_bias, d_kernel = torch.ops.hms_dist.norm_conv_backward(
        grad.contiguous(), *ctx.saved_tensors, ctx.num_slots, ctx.group_size, ctx.places, ctx.height, ctx.width,
        ctx.stride, ctx.groups,
    )  # fmt: skip
    return d_x, d_weight, d_bias, None, None, d_kernel, *[None] * 10


operator("norm_conv", _forward, _forward_shapes, _differentiate, _setup)
operator("norm_conv_backward", _backward, _backward_shapes)
