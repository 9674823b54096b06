"""The operators `gelu` and `gelu_backward` on a GPU: elementwise Triton kernels over contiguous memory."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hms_dist.model.norm_act_kernels import activated, slope_at
from hms_dist.model.norm_moments_kernels import STAGES

BLOCK, BLOCKS_A_PROGRAM, NUM_WARPS = 2048, 8, 4


def forward(x: Tensor) -> Tensor:
    """Compute GELU of `x`, contiguous, of any shape and any float dtype; same shape."""
    out = torch.empty_like(x)
    _gelu_kernel[_grid(x)](x, out, x.numel(), BLOCKS=BLOCKS_A_PROGRAM, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return out


def backward(grad: Tensor, x: Tensor) -> Tensor:
    """Compute the gradient of `x`; both contiguous, of any shape, the same, and any float dtype."""
    d_x = torch.empty_like(x)
    _gelu_gradient_kernel[_grid(x)](grad, x, d_x, x.numel(), BLOCKS=BLOCKS_A_PROGRAM, BLOCK=BLOCK, num_warps=NUM_WARPS)
    return d_x


def _grid(x: Tensor) -> tuple[int]:
    return (triton.cdiv(x.numel(), BLOCK * BLOCKS_A_PROGRAM),)


@triton.jit
def _gelu_kernel(x, out, length, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * (BLOCKS * BLOCK)
    for start in tl.range(0, BLOCKS * BLOCK, BLOCK, num_stages=STAGES):
        place = begin + start + tl.arange(0, BLOCK)
        here = place < length
        z = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        tl.store(out + place, activated(z, 1).to(out.dtype.element_ty), mask=here)


@triton.jit
def _gelu_gradient_kernel(grad, x, d_x, length, BLOCKS: tl.constexpr, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * (BLOCKS * BLOCK)
    for start in tl.range(0, BLOCKS * BLOCK, BLOCK, num_stages=STAGES):
        place = begin + start + tl.arange(0, BLOCK)
        here = place < length
        z = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        d = tl.load(grad + place, mask=here, other=0.0).to(tl.float32) * slope_at(z, 1)
        tl.store(d_x + place, d.to(d_x.dtype.element_ty), mask=here)
