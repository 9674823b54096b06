"""timm's TinyViT with blocks made for large pictures on a GPU: same parameters, same names, same results.

Attention computes no padding and copies no windows (`window_attention`). What stands between convolutions is one
operator (`norm_act`), together with the next convolution where there is one (`norm_conv`). 1 x 1 convolutions are
products of matrices on channels-last pictures; for others see `convolutions`. Where an operator cannot be used, a
block computes as timm's own does.
"""

from importlib.util import find_spec
from typing import Any

import torch
from timm.models.tiny_vit import ConvNorm, MBConv, PatchEmbed, PatchMerging, TinyVitBlock, TinyVitStage
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.group_norms import GroupBatchNorm
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.norm_act import GELU, norm_act
from hms_dist.model.tiny_vit.norm_conv import norm_conv
from hms_dist.model.tiny_vit.window_attention import Biases, window_attention, window_biases

HEAD_DIMS = (16, 32, 64, 128)
"""Dimensions of a head that the kernels take."""
HAS_TRITON = find_spec("triton") is not None


def fast_blocks(model: nn.Module) -> nn.Module:
    """Exchange the blocks of `model`, in place, if it is timm's TinyViT; any other model is left as it is.

    Parameters, buffers and their names stay, and hooks of whole blocks; those of layers within one are not called where
    ours computes. On a CPU, on a GPU before `gpus.CAPABILITY`, in float64, for unusual head sizes and for norms that
    are frozen, in evaluation or synchronised over ranks, blocks compute as timm's own do. Ours keep no biases from
    one evaluation to the next, timm's do.
    """
    if not gpus.are_recent():
        return model
    for module in list(model.modules()):
        if type(module) in BLOCKS:
            module.__class__ = BLOCKS[type(module)]  # what it is made of stays; only `forward` is another
            if isinstance(module, WindowBlock):
                module.local_conv.__class__ = LocalConv
    return model


class WindowStage(TinyVitStage):  # type: ignore[misc]
    """Blocks that compute their biases together."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, more channels, half the height, half the width)."""
        x = self.downsample(x).permute(0, 2, 3, 1)
        if has_kernels(x) and all(has_usual_heads(block.attn) for block in self.blocks):
            tables = torch.stack([block.attn.attention_biases for block in self.blocks])
            biases = window_biases(tables, self.blocks[0].window_size, *x.shape[1:3])
            for block, of_block in zip(self.blocks, biases, strict=True):
                x = block(x, of_block)
        else:
            x = self.blocks(x)
        return x.permute(0, 3, 1, 2)


class WindowBlock(TinyVitBlock):  # type: ignore[misc]
    """Window attention, local convolution and MLP, on (batch, height, width, channels)."""

    def forward(self, x: Tensor, biases: Biases | None = None) -> Tensor:
        """The block's output, in the shape of `x`. `biases`: its own, if they are computed already."""
        if not (has_kernels(x) and has_usual_heads(self.attn)):
            return super().forward(x)
        grid = x.shape[1:3]
        if biases is None:
            biases, *_ = window_biases(self.attn.attention_biases[None], self.window_size, *grid)
        tokens = x.flatten(1, 2)  # see `rows`
        tokens = tokens + self.drop_path1(attend(self.attn, tokens, grid, biases))
        pictures = self.local_conv(torch.unflatten(tokens, 1, grid).permute(0, 3, 1, 2))
        tokens = pictures.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.unflatten(tokens + self.drop_path2(self.mlp(tokens)), 1, grid)


class LocalConv(ConvNorm):  # type: ignore[misc]
    """A convolution and its batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """The normalised convolution of `x` (batch, channels, height, width)."""
        return normalised(self.conv(x), self.bn) if is_fused(x, self.bn) else super().forward(x)


class Stem(PatchEmbed):  # type: ignore[misc]
    """From the picture to a quarter of its height and width."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, features, height / 4, width / 4)."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn):
            return super().forward(x)
        rows = self.conv1.bn.rows
        return normalised(norm_conv(self.conv1.conv(x), self.conv1.bn, self.conv2.conv, rows), self.conv2.bn)


class Bottleneck(MBConv):  # type: ignore[misc]
    """Widen, convolve each channel, narrow; with a shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, in the shape of `x`."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn, self.conv3.bn):
            return super().forward(x)
        rows = self.conv1.bn.rows
        wide = norm_conv(product(self.conv1.conv, x), self.conv1.bn, self.conv2.conv, rows)
        narrow = norm_conv(wide, self.conv2.bn, self.conv3.conv, rows)
        is_sure = isinstance(self.drop_path, nn.Identity)
        keep = None if is_sure else self.drop_path(narrow.new_ones(len(x), 1, 1, 1))
        out = norm_act(nchw_to_rows(narrow), self.conv3.bn, rows, act=GELU, shortcut=nchw_to_rows(x), keep=keep)
        return rows_to_nchw(out, *x.shape[2:])


class Merging(PatchMerging):  # type: ignore[misc]
    """Half the height and width, more channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, more channels, height / 2, width / 2)."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn, self.conv3.bn):
            return super().forward(x)
        rows = self.conv1.bn.rows
        x = norm_conv(product(self.conv1.conv, x), self.conv1.bn, self.conv2.conv, rows)
        return normalised(norm_conv(x, self.conv2.bn, self.conv3.conv, rows), self.conv3.bn)


BLOCKS: dict[type[nn.Module], Any] = {
    TinyVitStage: WindowStage,
    TinyVitBlock: WindowBlock,
    PatchEmbed: Stem,
    MBConv: Bottleneck,
    PatchMerging: Merging,
}
"""timm's class -> ours."""


def attend(attention: Any, tokens: Tensor, grid: tuple[int, ...], biases: Biases) -> Tensor:
    """What timm's `Attention` gives on `tokens` (batch, tokens of the grid, channels) cut into padded windows."""
    heads = (attention.num_heads, 3, attention.key_dim)
    qkv = attention.qkv(attention.norm(tokens)).view(len(tokens), *grid, *heads)
    padding = functional.linear(attention.norm.bias, attention.qkv.weight, attention.qkv.bias).view(heads)
    out = window_attention(qkv, biases, padding)
    return attention.proj(out.reshape(tokens.shape))


def product(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1 x 1 convolution without bias."""
    return rows_to_nchw(functional.linear(nchw_to_rows(x), conv.weight.flatten(1)), *x.shape[2:])


def normalised(x: Tensor, norm: Any) -> Tensor:
    """`norm(x)` of pictures, channels last in memory."""
    return rows_to_nchw(norm_act(nchw_to_rows(x), norm, norm.rows, act=0), *x.shape[2:])


def is_fused(x: Tensor, *norms: nn.Module) -> bool:
    """Whether `norm_act` takes the place of all these norms here."""
    return has_kernels(x) and all(isinstance(norm, GroupBatchNorm) and norm.training for norm in norms)


def has_kernels(x: Tensor) -> bool:
    """Whether `x` is where, and of a type that, the kernels can take."""
    return HAS_TRITON and gpus.is_for(x)


def has_usual_heads(attention: Any) -> bool:
    """Whether the attention kernels know the size of its heads."""
    return attention.key_dim == attention.val_dim and attention.key_dim in HEAD_DIMS
