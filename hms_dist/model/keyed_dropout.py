"""Dropout and stochastic depth with draws keyed by row, which do not depend on passes or ranks.

A layer's draw for an element is a 32-bit hash of (key of the row, layer, element). It is the same in eager and compiled
mode, on a CPU and a GPU, and when activations are recomputed. Torch's generators are not used.
"""

import torch
from torch import Tensor, nn

from hms_dist.core.integer_hash import mixed
from hms_dist.model.pass_rows import PassRows

NUM_LEVELS = 2**24
"""Draws are multiples of 1 / NUM_LEVELS."""


class KeyedDropout(nn.Module):
    """`nn.Dropout` with draws keyed by row. The first dimension of its input is rows, or rows times tokens."""

    def __init__(self, p: float, layer: int, rows: PassRows, *, inplace: bool = False) -> None:
        """`layer`: number of this layer among the random layers of the network."""
        super().__init__()
        self.p, self.layer, self.rows, self.inplace = p, layer, rows, inplace

    def forward(self, x: Tensor) -> Tensor:
        """In training, set elements of `x` [rows, ...], any float dtype, to zero with probability `p`, and divide the
        others by 1 - p."""
        if not self.training or self.p == 0:
            return x
        per_row = x.numel() // self.rows.num_rows
        kept = _kept(self.rows.words, self.layer, per_row, self.p).view(x.shape)
        return x * (kept.to(x.dtype) * (1 / (1 - self.p)))

    def extra_repr(self) -> str:
        """Options shown by `print(model)`."""
        return f"p={self.p}"


class KeyedDropPath(nn.Module):
    """timm's `DropPath` with draws keyed by row: sets a residual branch to zero for some rows (or tokens)."""

    def __init__(self, drop_prob: float, layer: int, rows: PassRows, *, scale_by_keep: bool = True) -> None:
        """`layer`: see KeyedDropout. `scale_by_keep`: divide kept rows by the probability to keep them."""
        super().__init__()
        self.drop_prob, self.layer, self.rows, self.scale_by_keep = drop_prob, layer, rows, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        """In training, set random entries of the first dimension of `x` [rows, ...], any float dtype, to zero."""
        if not self.training or self.drop_prob == 0:
            return x
        kept = _kept(self.rows.words, self.layer, len(x) // self.rows.num_rows, self.drop_prob)
        scale = 1 / (1 - self.drop_prob) if self.scale_by_keep and self.drop_prob < 1 else 1.0
        return x * (kept.to(x.dtype) * scale).view(len(x), *[1] * (x.dim() - 1))

    def extra_repr(self) -> str:
        """Options shown by `print(model)`."""
        return f"drop_prob={self.drop_prob}"


def _kept(words: Tensor, layer: int, num_elements: int, p: float) -> Tensor:
    """Draw which elements are kept, each with probability 1 - p: bool [rows, num_elements]."""
    elements = torch.arange(num_elements, dtype=torch.int32, device=words.device)
    hashed = mixed(mixed(elements ^ words[:, 0, None]) ^ words[:, 1, None] ^ (layer * 0x3C6EF372 & 0x7FFFFFFF))
    return ((hashed >> 8) & (NUM_LEVELS - 1)) >= round(p * NUM_LEVELS)
