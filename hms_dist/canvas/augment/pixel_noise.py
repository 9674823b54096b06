"""Normal noise for each pixel, from an integer hash, the same on a CPU and a GPU, whose random generators differ.

For each pair of pixels, two 24-bit uniform numbers are hashed from the row's key and the number of the pair, and
converted to two normal numbers (Box and Muller, 1958). The integer arithmetic is exact on all devices; logarithm,
square root and cosine agree to a few float32 roundings, below 1e-5.
"""

import math

import torch
from torch import Tensor

from hms_dist.core.integer_hash import mixed

NUM_WORDS = 3
"""Number of 32-bit words of a row's key."""


def normal_noise(words: Tensor, height: int, width: int) -> Tensor:
    """Draw standard normal noise for pixels, float32 [n, 1, height, width], from int32 keys [n, 3]; magnitudes up to
    5.77."""
    num_pairs = (height * width + 1) // 2
    pairs = torch.arange(num_pairs, dtype=torch.int32, device=words.device)
    hashed = mixed(pairs ^ words[:, 0, None])
    radius = (-2 * _share(mixed(hashed ^ words[:, 1, None]), 1).log()).sqrt()
    angle = _share(mixed(hashed ^ words[:, 2, None]), 0) * (2 * math.pi)
    noise = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return noise[:, : height * width].reshape(-1, 1, height, width)


def _share(words: Tensor, first: int) -> Tensor:
    """Return (upper 24 bits + `first`) / 2^24, exact in float32."""
    return (((words >> 8) & 0xFFFFFF) + first).float() * 2.0**-24
