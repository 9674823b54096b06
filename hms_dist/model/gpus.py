"""Which GPUs, and which types of numbers, this package's ways to compute are for."""

import torch
from torch import Tensor

CAPABILITY = (8, 0)
"""Compute capability of the first GPUs that multiply matrices of bfloat16; ours is for these and later ones."""
TYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Types of activations."""


def are_recent() -> bool:
    """Whether no GPU of this machine is older than CAPABILITY; without a GPU, true."""
    return all(torch.cuda.get_device_capability(number) >= CAPABILITY for number in range(torch.cuda.device_count()))


def is_for(x: Tensor) -> bool:
    """Whether `x` is where, and of a type that, our ways to compute are for."""
    return x.is_cuda and x.dtype in TYPES


def layer_type(x: Tensor) -> torch.dtype:
    """The type that a convolution or a product of matrices computes `x` in: autocast's, where it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
