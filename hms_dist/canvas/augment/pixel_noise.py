"""Normal noise by pixel, from an integer hash on the device: the same on a CPU and a GPU, whose generators differ.

Each pair of pixels gets two 24-bit uniforms, hashed from the row's key and the pair's number, and from these two
normals by Box and Muller (1958). Whole-number arithmetic is exact everywhere; the logarithm, root and cosine that
follow agree to a few float32 roundings, below 1e-5.
"""

import math

import torch
from torch import Tensor

from hms_dist.core.integer_hash import mixed

NUM_WORDS = 3
"""32-bit words of a row's key."""


def normal_noise(words: Tensor, height: int, width: int) -> Tensor:
    """Standard normal float32 [n, 1, height, width] from int32 key `words` [n, 3]; none beyond 5.77."""
    num_pairs = (height * width + 1) // 2
    pairs = torch.arange(num_pairs, dtype=torch.int32, device=words.device)
    hashed = mixed(pairs ^ words[:, 0, None])
    radius = (-2 * _share(mixed(hashed ^ words[:, 1, None]), 1).log()).sqrt()
    angle = _share(mixed(hashed ^ words[:, 2, None]), 0) * (2 * math.pi)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return noise[:, : height * width].reshape(-1, 1, height, width)


def _share(words: Tensor, first: int) -> Tensor:
    """The upper 24 bits, counted from `first`, as a share of 2^24: float32 exactly."""
    return (((words >> 8) & 0xFFFFFF) + first).float() * 2.0**-24
