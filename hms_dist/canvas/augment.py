"""Random changes to a row's picture. Draws are keyed by (seed, epoch, row), never by rank or batch."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.keyed import keyed_uniform

_FLIP = 101
"""Stream of keyed draws: whether a row is flipped."""


def draw_flips(rows: NDArray[np.int64], *, seed: int, epoch: int, probability: float) -> Tensor:
    """Which rows [m] are shown with left and right exchanged: bool, on the host."""
    return torch.from_numpy(keyed_uniform(seed, _FLIP, epoch, rows) < probability)
