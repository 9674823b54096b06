"""The operator of `window_attention` on a GPU: a Triton kernel after FlashAttention-2 (Dao, 2023).

One launch computes all windows of one shape. A program reads its tokens directly from the grid, so nothing is
partitioned, padded or copied. The padded key initialises the running softmax. `window_gradient_kernels` has the
gradients.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hms_dist.model.tiny_vit.windows import WindowClass, window_classes

LOG2E = tl.constexpr(1.4426950408889634)
BLOCK_QUERIES, BLOCK_KEYS, NUM_WARPS = 64, 32, 4
"""Tile of the forward kernel."""
NUM_STAGES = 3
"""Stages of the software pipeline, also of the gradients."""


def forward(qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the output, and the log-sum-exp of each query's scores: float32 (batch, heads, height * width)."""
    batch, height, width, heads, _, dims = qkv.shape
    qkv, padding = qkv.contiguous(), padding.contiguous()
    out = qkv.new_empty(batch, height, width, heads, dims)
    lse = qkv.new_empty(batch, heads, height * width, dtype=torch.float32)
    bias, pad_bias = in_twos(bias, qkv.dtype), in_twos(pad_bias, torch.float32)
    for part in window_classes(height, width, size):
        block = _block(part, BLOCK_QUERIES)
        programs = triton.cdiv(part.height * part.width, block) * part.num_down * part.num_across * heads * batch
        _forward_kernel[(programs,)](
            *(qkv, bias, padding, pad_bias, out, lse),
            *geometry(qkv, part),
            **shape(qkv, part, size),
            BLOCK_Q=block,
            BLOCK_K=_block(part, BLOCK_KEYS),
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
    return out, lse


def in_twos(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert `bias`, of any shape and any float dtype, to base 2: the kernels use exp2."""
    return (bias * LOG2E.value).to(dtype).contiguous()


def _block(part: WindowClass, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(part.height * part.width)))


def geometry(qkv: Tensor, part: WindowClass) -> tuple[float, ...]:
    """Return the grid and the windows as arguments of a kernel. `qkv` (batch, height, width, heads, 3, dims), any float
    dtype."""
    scale = qkv.shape[-1] ** -0.5
    return (*qkv.shape[1:3], part.top, part.left, part.num_down, part.num_across, scale)


def shape(qkv: Tensor, part: WindowClass, size: int) -> dict[str, object]:
    """Return what a kernel is compiled for. `qkv` (batch, height, width, heads, 3, dims), any float dtype."""
    return {
        "HEADS": qkv.shape[3],
        "DIMS": qkv.shape[5],
        "SIZE": size,
        "HEIGHT": part.height,
        "WIDTH": part.width,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",  # used for float32 only
    }


@triton.jit
def window_of(program, TILES: tl.constexpr, HEADS: tl.constexpr, num_down, num_across):
    """Return the tile within the window, the head, the window (down, across) and the batch row of a program."""
    tile, rest = program % TILES, program // TILES
    head, rest = rest % HEADS, rest // HEADS
    across, rest = rest % num_across, rest // num_across
    return tile, head, rest % num_down, across, rest // num_down


@triton.jit
def load(place, mask, WHOLE: tl.constexpr):
    """Load values at `place`; zeros where `mask` is false. WHOLE: no mask is needed."""
    return tl.load(place) if WHOLE else tl.load(place, mask=mask, other=0.0)


@triton.jit
def _forward_kernel(
    qkv, bias, padding, pad_bias, out, lse,
    height, width, top, left, num_down, num_across, scale,
    HEADS: tl.constexpr, DIMS: tl.constexpr, SIZE: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    NUM: tl.constexpr = HEIGHT * WIDTH
    WHOLE: tl.constexpr = NUM % BLOCK_Q == 0 and NUM % BLOCK_K == 0
    PADDED: tl.constexpr = NUM < SIZE * SIZE
    tile, head, down, across, row = window_of(tl.program_id(0), tl.cdiv(NUM, BLOCK_Q), HEADS, num_down, num_across)
    first = (top + down * SIZE) * width + left + across * SIZE
    image = row.to(tl.int64) * height * width
    dims = tl.arange(0, DIMS)
    query = tile * BLOCK_Q + tl.arange(0, BLOCK_Q)
    is_query = query < NUM
    q_row, q_column = query // WIDTH, query % WIDTH
    q_place = first + q_row * width + q_column
    base = qkv + image * (HEADS * 3 * DIMS) + head * (3 * DIMS)
    q = tl.load(base + q_place[:, None] * (HEADS * 3 * DIMS) + dims, mask=is_query[:, None], other=0.0)
    scale_twos = scale * LOG2E
    if PADDED:
        pad_key = tl.load(padding + head * (3 * DIMS) + DIMS + dims).to(tl.float32)
        pad_value = tl.load(padding + head * (3 * DIMS) + 2 * DIMS + dims).to(tl.float32)
        top_score = tl.sum(q.to(tl.float32) * pad_key, axis=1) * scale_twos
        top_score += tl.load(pad_bias + head * height * width + q_place, mask=is_query, other=0.0)
        total = tl.full([BLOCK_Q], 1.0, tl.float32)
        acc = tl.zeros([BLOCK_Q, DIMS], tl.float32) + pad_value
    else:
        top_score = tl.full([BLOCK_Q], float("-inf"), tl.float32)
        total = tl.zeros([BLOCK_Q], tl.float32)
        acc = tl.zeros([BLOCK_Q, DIMS], tl.float32)
    bias_rows = bias + head * ((2 * SIZE - 1) * SIZE * SIZE)
    for start in range(0, NUM, BLOCK_K):
        key = start + tl.arange(0, BLOCK_K)
        is_key = key < NUM
        k_row, k_column = key // WIDTH, key % WIDTH
        k_place = (first + k_row * width + k_column)[:, None] * (HEADS * 3 * DIMS) + dims
        # The bias is symmetric in the columns; in this order neighbouring keys are neighbours in memory.
        apart = k_row[None, :] - q_row[:, None] + (SIZE - 1)
        pairs = bias_rows + (apart * SIZE + q_column[:, None]) * SIZE + k_column[None, :]
        k = load(base + DIMS + k_place, is_key[:, None], WHOLE)
        v = load(base + 2 * DIMS + k_place, is_key[:, None], WHOLE)
        b = load(pairs, is_query[:, None] & is_key[None, :], WHOLE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_twos + b
        if NUM % BLOCK_K != 0:
            scores = tl.where(is_key[None, :], scores, float("-inf"))
        above = tl.maximum(top_score, tl.max(scores, axis=1))
        shares = tl.exp2(scores - above[:, None])
        shrink = tl.exp2(top_score - above)
        total = total * shrink + tl.sum(shares, axis=1)
        acc = tl.dot(shares.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        top_score = above
    result = (acc / total[:, None]).to(out.dtype.element_ty)
    o_place = out + image * (HEADS * DIMS) + q_place[:, None] * (HEADS * DIMS) + head * DIMS + dims
    tl.store(o_place, result, mask=is_query[:, None])
    tl.store(lse + image * HEADS + head * height * width + q_place, (top_score + tl.log2(total)) / LOG2E, mask=is_query)
