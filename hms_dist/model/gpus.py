"""GPUs and dtypes supported by the package's fast operators."""

import torch
from torch import Tensor

CAPABILITY = (8, 0)
"""Compute capability of the first GPUs with bfloat16 matrix units; the operators need these or later ones."""
TYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Supported dtypes of activations."""


def are_recent() -> bool:
    """Whether no GPU of this machine is older than CAPABILITY; True without a GPU."""
    return all(torch.cuda.get_device_capability(number) >= CAPABILITY for number in range(torch.cuda.device_count()))


def is_for(x: Tensor) -> bool:
    """Whether device and dtype of `x` are supported."""
    return x.is_cuda and x.dtype in TYPES


def layer_type(x: Tensor) -> torch.dtype:
    """Dtype in which a convolution or matrix product computes `x`: that of autocast, if it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
