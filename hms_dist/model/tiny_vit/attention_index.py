"""The table of pairs of timm's window attention, computed at once.

timm computes it pair by pair in Python: 2.5 s on one core for TinyViT-21M at 640 x 1920, in every process.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from timm.models.tiny_vit import Attention


@contextmanager
def fast_attention_index() -> Iterator[None]:
    """Construct timm's TinyViT models inside the block with the fast function; the table is the same."""
    original = getattr(Attention, "_init_buffers", None)
    if original is None:  # an older timm, which has no such function
        yield
        return
    Attention._init_buffers = _init_buffers
    try:
        yield
    finally:
        Attention._init_buffers = original


def _init_buffers(attention: Attention) -> None:
    index = attention.attention_bias_idxs
    height, width = attention.resolution
    index.copy_(pair_index(height, width, index.device))
    attention.attention_bias_cache = {}


def pair_index(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Return the entry of the bias table of every pair of tokens of a window: int64 [height * width, height * width].

    The table has one entry for each distance (|rows|, |columns|), in row-major order.
    """
    rows, columns = (torch.arange(size, device=device) for size in (height, width))
    down, across = ((places[:, None] - places).abs() for places in (rows, columns))
    pairs = down[:, None, :, None] * width + across[None, :, None, :]
    return pairs.reshape(height * width, height * width)
