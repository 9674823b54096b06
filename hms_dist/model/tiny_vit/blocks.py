"""timm's TinyViT with blocks for large images on a GPU: the same parameters, names and results.

Attention computes no padding and copies no windows (`window_attention`). Norm, shortcut and activation between
convolutions are one operator (`norm_act`). 1 x 1 convolutions are matrix products on channels-last images; for others
see `convolutions`. If an operator cannot be used, a block falls back to timm's forward.
"""

from typing import Any

import torch
from timm.models.tiny_vit import ConvNorm, MBConv, PatchEmbed, PatchMerging, TinyVitBlock, TinyVitStage
from torch import Tensor, nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.fast_gelu import FastGelu
from hms_dist.model.group_norms import GroupBatchNorm
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.norm_act import GELU, norm_act, stored_norm_act
from hms_dist.model.tiny_vit.window_attention import Biases, window_attention, window_biases

HEAD_DIMS = (16, 32, 64, 128)
"""Head dimensions that the kernels support."""


def fast_blocks(model: nn.Module) -> nn.Module:
    """Replace the blocks of `model`, in place, if it is timm's TinyViT; other models are not changed.

    Parameters, buffers, their names, and hooks of whole blocks are kept; hooks of layers inside a block are not called
    by the fast forward. Blocks fall back to timm's forward on a CPU, where `gpus.are_fast` is False, in float64, for
    other head sizes, and for norms that are synchronised over ranks, or in evaluation mode while gradients are
    computed. Unlike timm's, these blocks do not cache attention biases in evaluation mode.
    """
    if not gpus.are_fast():
        return model
    for module in list(model.modules()):
        if type(module) in BLOCKS:
            module.__class__ = BLOCKS[type(module)]  # keeps the state; only `forward` changes
            if isinstance(module, WindowBlock):
                module.local_conv.__class__ = LocalConv
                if type(module.mlp.act) is nn.GELU:
                    module.mlp.act.__class__ = FastGelu
    return model


class WindowStage(TinyVitStage):  # type: ignore[misc]
    """A stage whose blocks compute their attention biases together."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, more channels, half the height, half the width), any float
        dtype."""
        x = self.downsample(x).permute(0, 2, 3, 1)
        if has_kernels(x) and all(has_supported_heads(block.attn) for block in self.blocks):
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
        """Compute the block's output from `x` [batch, height, width, channels], any float dtype; same shape.

        `biases`: those of this block; None: they are computed here.
        """
        if not (has_kernels(x) and has_supported_heads(self.attn)):
            return super().forward(x)
        grid = x.shape[1:3]
        if biases is None:
            biases, *_ = window_biases(self.attn.attention_biases[None], self.window_size, *grid)
        tokens = x.flatten(1, 2)  # tensors of 3 dimensions: see `layout`
        tokens = tokens + self.drop_path1(attend(self.attn, tokens, grid, biases))
        pictures = self.local_conv(torch.unflatten(tokens, 1, grid).permute(0, 3, 1, 2))
        tokens = pictures.permute(0, 2, 3, 1).flatten(1, 2)
        return torch.unflatten(tokens + self.drop_path2(self.mlp(tokens)), 1, grid)


class LocalConv(ConvNorm):  # type: ignore[misc]
    """A convolution with batch norm."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve and normalise `x` (batch, channels, height, width), any float dtype."""
        return fused(self.conv(x), self.bn) if is_fused(x, self.bn) else super().forward(x)


class Stem(PatchEmbed):  # type: ignore[misc]
    """The stem, which reduces height and width of the image by 4."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, features, height / 4, width / 4), any float dtype."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn):
            return super().forward(x)
        x = fused(self.conv1.conv(x), self.conv1.bn, act=GELU)
        return fused(self.conv2.conv(x), self.conv2.bn)


class Bottleneck(MBConv):  # type: ignore[misc]
    """An inverted bottleneck: expand channels, depthwise convolution, project, shortcut."""

    def forward(self, x: Tensor) -> Tensor:
        """Compute the block's output from `x` [batch, channels, height, width], any float dtype; same shape."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn, self.conv3.bn):
            return super().forward(x)
        wide = fused(conv_1x1(self.conv1.conv, x), self.conv1.bn, act=GELU)
        wide = fused(self.conv2.conv(wide), self.conv2.bn, act=GELU)
        narrow = conv_1x1(self.conv3.conv, wide)
        is_sure = isinstance(self.drop_path, nn.Identity)
        keep = None if is_sure else self.drop_path(narrow.new_ones(len(x), 1, 1, 1))
        return fused(narrow, self.conv3.bn, act=GELU, shortcut=x, keep=keep)


class Merging(PatchMerging):  # type: ignore[misc]
    """Downsampling: half the height and width, more channels."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, more channels, height / 2, width / 2), any float dtype."""
        if not is_fused(x, self.conv1.bn, self.conv2.bn, self.conv3.bn):
            return super().forward(x)
        x = fused(conv_1x1(self.conv1.conv, x), self.conv1.bn, act=GELU)
        x = fused(self.conv2.conv(x), self.conv2.bn, act=GELU)
        return fused(conv_1x1(self.conv3.conv, x), self.conv3.bn)


BLOCKS: dict[type[nn.Module], Any] = {
    TinyVitStage: WindowStage,
    TinyVitBlock: WindowBlock,
    PatchEmbed: Stem,
    MBConv: Bottleneck,
    PatchMerging: Merging,
}
"""timm's class -> its replacement."""


def attend(attention: Any, tokens: Tensor, grid: tuple[int, ...], biases: Biases) -> Tensor:
    """Compute timm's `Attention` on the padded windows of `tokens` (batch, tokens of the grid, channels), any float
    dtype."""
    heads = (attention.num_heads, 3, attention.key_dim)
    qkv = attention.qkv(attention.norm(tokens)).view(len(tokens), *grid, *heads)
    padding = functional.linear(attention.norm.bias, attention.qkv.weight, attention.qkv.bias).view(heads)
    out = window_attention(qkv, biases, padding)
    return attention.proj(out.reshape(tokens.shape))


def conv_1x1(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Compute a 1 x 1 convolution without bias of images [batch, channels, height, width], any float dtype, as a
    matrix product."""
    return rows_to_nchw(functional.linear(nchw_to_rows(x), conv.weight.flatten(1)), *x.shape[2:])


def fused(x: Tensor, norm: Any, *, act: int = 0, shortcut: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
    """Compute act(shortcut + keep * norm(x)) of images [batch, channels, height, width], any float dtype.

    `act`: number of the activation in `norm_act`. `keep` [batch, 1, 1, 1]. The result has the shape of `x` and is
    channels-last in memory. A norm in evaluation mode uses its running statistics.
    """
    flat, added = nchw_to_rows(x), None if shortcut is None else nchw_to_rows(shortcut)
    if norm.training:
        out = norm_act(flat, norm, norm.rows, act=act, shortcut=added, keep=keep)
    else:
        out = stored_norm_act(flat, norm, len(x), act=act, shortcut=added, keep=keep)
    return rows_to_nchw(out, *x.shape[2:])


def is_fused(x: Tensor, *norms: nn.Module) -> bool:
    """Whether `fused` can replace all these norms for `x`, of any shape and any float dtype: all are norms by group in
    training, or all use running statistics and no gradients are computed."""
    if not has_kernels(x):
        return False
    if any(norm.training for norm in norms):
        return all(isinstance(norm, GroupBatchNorm) and norm.training for norm in norms)
    return not torch.is_grad_enabled() and all(
        isinstance(norm, GroupBatchNorm | nn.BatchNorm2d) and norm.running_mean is not None for norm in norms
    )


def has_kernels(x: Tensor) -> bool:
    """Whether the kernels support the device and dtype of `x`, of any shape."""
    return gpus.is_for(x)


def has_supported_heads(attention: Any) -> bool:
    """Whether the attention kernels support the head size."""
    return attention.key_dim == attention.val_dim and attention.key_dim in HEAD_DIMS
