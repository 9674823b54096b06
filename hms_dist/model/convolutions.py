"""Two kinds of convolutions in a form that is fast on GPUs: same parameters, same names, same results.

cuDNN copies the input of the first convolution, with one or few channels, to eight channels; here it is a matrix
product with the patches of the picture. And cuDNN computes the input gradient of a depthwise convolution much more
slowly than the convolution itself. At stride 1 it is a depthwise convolution with the kernel rotated by 180 degrees; at
stride 2 a kernel computes it (`depthwise_kernels`).
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.operators import operator

MAX_CHANNELS = 3
"""Most channels of a first convolution's input."""
PATCH_NUMBERS = 16
"""The values of a patch are padded to a multiple of this, as tensor cores require."""


def fast_convolutions(model: nn.Module) -> nn.Module:
    """Replace the convolutions of `model` that have a faster form, in place.

    Parameters, buffers and their names are unchanged. On a CPU, where `gpus.are_fast` is False and in float64
    the original form is used.
    """
    if not gpus.are_fast():
        return model
    for module in model.modules():
        if type(module) in FIRST and _reads_few(module):
            module.__class__ = FIRST[type(module)]  # parameters stay; only `forward` changes
        elif type(module) is nn.Conv2d and _keeps_channels_apart(module):
            module.__class__ = ChannelConv
    return model


class FirstConv(nn.Conv2d):
    """A 3 x 3 convolution of stride 2 with few input channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` (batch, channels, height, width), any float dtype, channels last in memory."""
        return patch_product(self, functional.pad(x, _frame(self))) if gpus.is_for(x) else super().forward(x)


class FirstConvSame(Conv2dSame):  # type: ignore[misc]
    """A 3 x 3 convolution of stride 2 with few input channels and TensorFlow's padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` (batch, channels, height, width), any float dtype, channels last in memory."""
        if not gpus.is_for(x):
            return super().forward(x)
        return patch_product(self, pad_same(x, self.kernel_size, self.stride))


class ChannelConv(nn.Conv2d):
    """A depthwise convolution of stride 1 or 2, padded by half its kernel."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve `x` (batch, channels, height, width), any float dtype."""
        if not gpus.is_for(x):
            return super().forward(x)
        kind = gpus.layer_type(x)
        out: Tensor = _ChannelConv.apply(x.to(kind), self.weight.to(kind), self.stride[0])  # type: ignore[no-untyped-call]
        return out


FIRST: dict[type[nn.Module], Any] = {nn.Conv2d: FirstConv, Conv2dSame: FirstConvSame}
"""Original class -> fast class."""


def patch_product(conv: nn.Conv2d, framed: Tensor) -> Tensor:
    """Compute `conv` of already padded pictures (batch, channels, height, width), any float dtype, as one matrix
    product."""
    framed, (tall, wide), (down, right) = framed.to(gpus.layer_type(framed)), conv.kernel_size, conv.stride
    bottom, end = framed.shape[2] - tall + 1, framed.shape[3] - wide + 1
    places = [framed[:, :, i : i + bottom : down, j : j + end : right] for i in range(tall) for j in range(wide)]
    patches = torch.stack(places, dim=2).flatten(1, 2)  # channel, then position in the patch, as in the weights
    filling = (0, -patches.shape[1] % PATCH_NUMBERS)
    rows = functional.pad(nchw_to_rows(patches), filling)
    out = functional.linear(rows, functional.pad(conv.weight.flatten(1), filling), conv.bias)
    return rows_to_nchw(out, *patches.shape[2:])


class _ChannelConv(torch.autograd.Function):
    """Not a custom operator, so that the compiler sees the convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.stride = stride
        return _each_channel(x, kernel, stride)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        x, kernel = ctx.saved_tensors
        _, d_kernel = _gradients(grad, x, kernel, ctx.stride, (False, True))
        if ctx.stride == 1:
            return _each_channel(grad, kernel.flip(2, 3), 1), d_kernel, None
        size = x.shape[2:]
        d_x = torch.ops.hms_dist.depthwise_input_gradient(nchw_to_rows(grad), kernel, *size)
        return rows_to_nchw(d_x, *size), d_kernel, None


def _each_channel(x: Tensor, kernel: Tensor, stride: int) -> Tensor:
    return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=len(kernel))


def _gradients(
    grad: Tensor, x: Tensor, kernel: Tensor, stride: int, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor]:
    """Compute torch's gradients of `x` and `kernel`; empty unless `wanted`."""
    pad, backward = [kernel.shape[-1] // 2] * 2, cast("Callable[..., Any]", torch.ops.aten.convolution_backward)
    d_x, d_kernel, _ = backward(
        grad, x, kernel, None, [stride] * 2, pad, [1, 1], False, [0, 0], len(kernel), [*wanted, False]
    )
    return d_x, d_kernel


def _input_gradient(grad: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    """Compute the input gradient of a depthwise convolution of stride 2; arguments as `depthwise_kernels`."""
    if grad.is_cuda and gpus.is_for(grad):
        from hms_dist.model import depthwise_kernels  # needs Triton

        return depthwise_kernels.input_gradient(grad, kernel, height, width)
    d_out = rows_to_nchw(grad, (height + 1) // 2, (width + 1) // 2)
    x = d_out.new_empty(len(d_out), len(kernel), height, width)
    return nchw_to_rows(_gradients(d_out, x, kernel, 2, (True, False))[0])


def _input_gradient_shape(grad: Tensor, kernel: Tensor, height: int, width: int) -> Tensor:
    batch = len(grad) // (((height + 1) // 2) * ((width + 1) // 2))
    return grad.new_empty(batch * height * width, len(kernel))


operator("depthwise_input_gradient", _input_gradient, _input_gradient_shape)


def _reads_few(conv: nn.Module) -> bool:
    return (
        isinstance(conv, nn.Conv2d)
        and conv.in_channels <= MAX_CHANNELS
        and (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (2, 2), (1, 1))
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
    )


def _keeps_channels_apart(conv: nn.Conv2d) -> bool:
    size = conv.kernel_size[0]
    return (
        conv.groups == conv.in_channels == conv.out_channels > 1
        and (conv.kernel_size, conv.dilation) == ((size, size), (1, 1))
        and conv.stride in ((1, 1), (2, 2))
        and size % 2 == 1
        and size > 1
        and conv.padding == (size // 2, size // 2)
        and conv.padding_mode == "zeros"
        and conv.bias is None
    )


def _frame(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """The convolution's own padding, in the form that `pad` takes."""
    down, right = (int(pad) for pad in conv.padding)
    return right, right, down, down
