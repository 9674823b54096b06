"""timm's TinyViT with blocks whose attention computes no padding and copies no windows: same parameters and results."""

from importlib.util import find_spec
from typing import Any

import torch
from timm.models.tiny_vit import TinyVitBlock
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model.window_attention import window_attention

HEAD_DIMS = (16, 32, 64, 128)
"""Dimensions of a head that the kernels take."""
HAS_TRITON = find_spec("triton") is not None


def fast_attention(model: nn.Module) -> nn.Module:
    """Exchange the blocks of `model`, in place, if it is timm's TinyViT; any other model is left as it is.

    Parameters, buffers, their names and hooks stay. On a CPU, in float64 and for unusual head sizes the blocks
    compute as timm's own do. Ours keep no biases from one evaluation to the next, timm's do.
    """
    for module in model.modules():
        if type(module) is TinyVitBlock:
            module.__class__ = WindowBlock  # what it is made of stays; only `forward` is another
    return model


class WindowBlock(TinyVitBlock):  # type: ignore[misc]
    """Window attention, local convolution and MLP, on (batch, height, width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, in the shape of `x`."""
        if not has_kernels(x, self.attn):
            return super().forward(x)
        x = x + self.drop_path1(attend(self.attn, x, self.window_size))
        x = self.local_conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path2(self.mlp(x))


def attend(attention: Any, x: Tensor, size: int) -> Tensor:
    """What timm's `Attention` gives on `x` (batch, height, width, channels) cut into padded windows."""
    heads = (attention.num_heads, 3, attention.key_dim)
    qkv = attention.qkv(attention.norm(x)).unflatten(-1, heads)
    padding = functional.linear(attention.norm.bias, attention.qkv.weight, attention.qkv.bias).view(heads)
    out = window_attention(qkv, attention.attention_biases, padding, size)
    return attention.proj(out.flatten(-2))


def has_kernels(x: Tensor, attention: Any) -> bool:
    """Whether `x` is where, and `attention` of a form that, the kernels can take."""
    usual = attention.key_dim == attention.val_dim and attention.key_dim in HEAD_DIMS
    return HAS_TRITON and usual and x.is_cuda and x.dtype in (torch.bfloat16, torch.float16, torch.float32)
