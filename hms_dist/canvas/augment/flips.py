"""Draw which rows are flipped, and which are reversed in time; on the host, before panels are read."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.core.keyed import keyed_uniform

_FLIP, _REVERSE = 101, 102
"""Streams of keyed draws: whether a row is flipped, and whether it is reversed in time."""


def draw_flips(rows: NDArray[np.int64], *, seed: int, epoch: int, probability: float) -> Tensor:
    """Draw which rows are flipped (left and right exchanged): bool [m], on the host."""
    return torch.from_numpy(keyed_uniform(seed, _FLIP, epoch, rows) < probability)


def draw_reversals(rows: NDArray[np.int64], *, seed: int, epoch: int, probability: float) -> Tensor:
    """Draw which rows are reversed in time: bool [m], on the host."""
    return torch.from_numpy(keyed_uniform(seed, _REVERSE, epoch, rows) < probability)
