"""Two kinds of convolutions as what a GPU computes quickly: same parameters, same names, same results.

A net's first convolution reads one channel, or few, which cuDNN first copies to eight: here it is a product with the
patches of the picture. And the gradient of what a convolution of single channels reads takes cuDNN much longer than
the convolution itself, though at stride 1 it is just such a convolution, by the kernel turned by half a turn.
"""

from collections.abc import Callable
from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw

MAX_CHANNELS = 3
"""Of a picture that a first convolution reads."""
PATCH_NUMBERS = 16
"""A patch's numbers are filled up to a multiple of this, as the matrix units like it."""


def fast_convolutions(model: nn.Module) -> nn.Module:
    """Exchange the convolutions of `model` that can be computed more quickly, in place.

    Parameters, buffers and their names stay. On a CPU, on a GPU before `gpus.CAPABILITY` and in float64 they compute
    as they did.
    """
    if not gpus.are_recent():
        return model
    for module in model.modules():
        if type(module) in FIRST and _reads_few(module):
            module.__class__ = FIRST[type(module)]  # what it is made of stays; only `forward` is another
        elif type(module) is nn.Conv2d and _keeps_channels_apart(module):
            module.__class__ = ChannelConv
    return model


class FirstConv(nn.Conv2d):
    """A 3 x 3 convolution of stride 2 over few channels."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x` (batch, channels, height, width), channels last in memory."""
        return patch_product(self, functional.pad(x, _frame(self))) if gpus.is_for(x) else super().forward(x)


class FirstConvSame(Conv2dSame):  # type: ignore[misc]
    """The same, padded as TensorFlow does it."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x` (batch, channels, height, width), channels last in memory."""
        if not gpus.is_for(x):
            return super().forward(x)
        return patch_product(self, pad_same(x, self.kernel_size, self.stride))


class ChannelConv(nn.Conv2d):
    """A convolution of each channel by itself, of stride 1, that keeps height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """The convolution of `x` (batch, channels, height, width)."""
        if not gpus.is_for(x):
            return super().forward(x)
        kind = gpus.layer_type(x)
        out: Tensor = _ChannelConv.apply(x.to(kind), self.weight.to(kind))  # type: ignore[no-untyped-call]
        return out


FIRST: dict[type[nn.Module], Any] = {nn.Conv2d: FirstConv, Conv2dSame: FirstConvSame}
"""Their class -> ours."""


def patch_product(conv: nn.Conv2d, framed: Tensor) -> Tensor:
    """`conv` of pictures (batch, channels, height, width) that are padded already, as one product of matrices."""
    framed, (tall, wide), (down, right) = framed.to(gpus.layer_type(framed)), conv.kernel_size, conv.stride
    bottom, end = framed.shape[2] - tall + 1, framed.shape[3] - wide + 1
    places = [framed[:, :, i : i + bottom : down, j : j + end : right] for i in range(tall) for j in range(wide)]
    patches = torch.stack(places, dim=2).flatten(1, 2)  # channel, then place in the patch, as the weights
    filling = (0, -patches.shape[1] % PATCH_NUMBERS)
    rows = functional.pad(nchw_to_rows(patches), filling)
    out = functional.linear(rows, functional.pad(conv.weight.flatten(1), filling), conv.bias)
    return rows_to_nchw(out, *patches.shape[2:])


class _ChannelConv(torch.autograd.Function):
    """No operator of this package's: the compiler is to see the convolutions."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor) -> Tensor:
        ctx.save_for_backward(x, kernel)
        return _each_channel(x, kernel)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, kernel = ctx.saved_tensors
        return conv_gradients(grad, x, kernel, stride=1, groups=len(kernel))


def conv_gradients(grad: Tensor, x: Tensor, kernel: Tensor, *, stride: int, groups: int) -> tuple[Tensor, Tensor]:
    """Gradients of `x` (batch, channels, height, width) and of `kernel` (channels, x's channels / groups, size, size).

    Of a convolution that is padded by half its kernel, an odd size.
    """
    pad = kernel.shape[-1] // 2
    is_turned = stride == 1 and kernel.shape[1] == 1 and groups == len(kernel)
    backward: Callable[..., Any] = torch.ops.aten.convolution_backward
    d_x, d_kernel, _ = backward(
        grad, x, kernel, None, [stride] * 2, [pad] * 2, [1, 1], False, [0, 0], groups, [not is_turned, True, False]
    )
    return _each_channel(grad, kernel.flip(2, 3)) if is_turned else d_x, d_kernel


def _each_channel(x: Tensor, kernel: Tensor) -> Tensor:
    return functional.conv2d(x, kernel, padding=kernel.shape[-1] // 2, groups=len(kernel))


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
        and (conv.kernel_size, conv.stride, conv.dilation) == ((size, size), (1, 1), (1, 1))
        and size % 2 == 1
        and size > 1
        and conv.padding == (size // 2, size // 2)
        and conv.padding_mode == "zeros"
        and conv.bias is None
    )


def _frame(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """What `pad` takes for the convolution's own padding."""
    down, right = (int(pad) for pad in conv.padding)
    return right, right, down, down
