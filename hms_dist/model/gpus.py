"""GPUs and dtypes supported by the package's fast operators."""

import os
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

PLAIN_OPERATORS = "HMS_DIST_PLAIN_OPERATORS"
"""Environment variable; if it is set and not empty, torch's own operators replace the fast ones."""
ARE_ON = not os.environ.get(PLAIN_OPERATORS)
"""Whether the fast operators are not switched off."""
HAS_TRITON = find_spec("triton") is not None
CAPABILITY = (8, 0)
"""Compute capability of the first GPUs with bfloat16 matrix units; the operators need these or later ones."""
TYPES = (torch.bfloat16, torch.float16, torch.float32)
"""Supported dtypes of activations."""


@cache
def are_fast() -> bool:
    """Whether the fast operators are on and no GPU of this machine is older than CAPABILITY; True without a GPU."""
    return ARE_ON and all(
        torch.cuda.get_device_capability(number) >= CAPABILITY for number in range(torch.cuda.device_count())
    )


def is_for(x: Tensor) -> bool:
    """Whether the fast operators are on and support device and dtype of `x`, of any shape."""
    return ARE_ON and HAS_TRITON and x.is_cuda and x.dtype in TYPES


def layer_type(x: Tensor) -> torch.dtype:
    """Dtype in which a convolution or matrix product computes `x`, of any shape and any float dtype: that of
    autocast, if it is on."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
