"""Random draws inside the model (dropout, stochastic depth), keyed by the group that they are for.

A generator that runs on from group to group would give a group other draws on another number of ranks, or
after a resume. A hash of the group's place in the run depends on nothing that went before.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.core.keyed import keyed_hash, keyed_uniform

GroupKey = tuple[int, int, int, int]
"""A group's place in the run: seed, epoch, step within the epoch, group within the step."""
PURPOSE = 0x6D6F64656C  # "model": keeps these draws apart from others keyed by the same four numbers


def group_seed(seed: int, epoch: int, step: int, group: int) -> int:
    """The 64-bit seed of one group, from the run's seed and the group's place in it.

    `step` counts within the epoch, `group` within the whole step, over all ranks.
    """
    return int(keyed_hash(PURPOSE, seed, epoch, step, group))


def seed_group(seed: int, epoch: int, step: int, group: int) -> None:
    """Set torch's global generators (CPU and every GPU) for one group. Call it before its forward pass."""
    torch.manual_seed(group_seed(seed, epoch, step, group))


def group_uniform(key: GroupKey, stream: int, count: int) -> NDArray[np.float64]:
    """`count` uniform draws in [0, 1) of one group, one for each of its rows; another `stream`, other draws."""
    return keyed_uniform(PURPOSE, *key, stream, np.arange(count))
