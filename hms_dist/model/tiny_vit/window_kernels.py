"""The operator of `window_attention` on a GPU: Triton kernels after FlashAttention-2 (Dao, 2023).

One launch computes all windows of one shape. A program reads its tokens directly from the grid, so nothing is
partitioned, padded or copied. The padded key initialises the running softmax. In the backward pass a program computes a
block of keys; gradients of queries and biases are summed by atomic additions in float32, so their last bits vary
between runs.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hms_dist.model.launches import Launch, launch_all
from hms_dist.model.tiny_vit.windows import WindowClass, window_classes

LOG2E = tl.constexpr(1.4426950408889634)
BLOCK_QUERIES, BLOCK_KEYS, NUM_WARPS = 64, 32, 4
"""Tile of the forward kernel."""
BACKWARD_QUERIES, BACKWARD_KEYS, BACKWARD_WARPS = 32, 128, 4
"""Tile of the backward kernel. docs/performance.md has the times of other tiles."""
NUM_STAGES = 3
"""Stages of the software pipeline of both kernels."""
BLOCK_TOKENS = 64
"""Tile of the delta kernel."""


def forward(qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Compute the output, and the log-sum-exp of each query's scores: float32 (batch, heads, height * width)."""
    batch, height, width, heads, _, dims = qkv.shape
    qkv, padding = qkv.contiguous(), padding.contiguous()
    out = qkv.new_empty(batch, height, width, heads, dims)
    lse = qkv.new_empty(batch, heads, height * width, dtype=torch.float32)
    bias, pad_bias = _in_twos(bias, qkv.dtype), _in_twos(pad_bias, torch.float32)
    launches = []
    for part in window_classes(height, width, size):
        block = _block(part, BLOCK_QUERIES)
        programs = triton.cdiv(part.height * part.width, block) * part.num_down * part.num_across * heads * batch
        tile = {"BLOCK_Q": block, "BLOCK_K": _block(part, BLOCK_KEYS), "num_warps": NUM_WARPS}
        arguments = (qkv, bias, padding, pad_bias, out, lse, *_geometry(qkv, part))
        options = {**_shape(qkv, part, size), **tile, "num_stages": NUM_STAGES}
        launches.append(Launch(_forward_kernel, (programs,), arguments, options))
    launch_all(("forward", *_key(qkv, size)), launches)
    return out, lse


def backward(
    grad: Tensor, qkv: Tensor, bias: Tensor, padding: Tensor, pad_bias: Tensor, out: Tensor, lse: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Compute the gradients of qkv, bias, padding and pad_bias, in their dtypes; arguments as `window_attention`."""
    batch, height, width, heads, _, dims = qkv.shape
    qkv, padding = qkv.contiguous(), padding.contiguous()
    grad, out, lse = grad.contiguous(), out.contiguous(), lse.contiguous()
    d_qkv = torch.empty_like(qkv)
    d_query = torch.empty_like(out, dtype=torch.float32)
    delta = torch.empty_like(lse)
    d_bias, d_padding, d_pad_bias = (
        tensor.new_zeros(tensor.shape, dtype=torch.float32) for tensor in (bias, padding, pad_bias)
    )
    twos, pad_twos = _in_twos(bias, qkv.dtype), _in_twos(pad_bias, torch.float32)
    delta_arguments = (qkv, padding, pad_twos, out, lse, grad, delta, d_query, d_padding, d_pad_bias)
    delta_options = {
        "HEADS": heads, "DIMS": dims, "PADDED": height % size > 0 or width % size > 0, "BLOCK": BLOCK_TOKENS
    }  # fmt: skip
    grid = (triton.cdiv(height * width, BLOCK_TOKENS) * heads * batch,)
    launches = [Launch(_delta_kernel, grid, (*delta_arguments, height * width, dims**-0.5), delta_options)]
    for part in window_classes(height, width, size):
        block = _block(part, BACKWARD_KEYS)
        programs = triton.cdiv(part.height * part.width, block) * part.num_down * part.num_across * heads * batch
        tile = {"BLOCK_Q": _block(part, BACKWARD_QUERIES), "BLOCK_K": block, "num_warps": BACKWARD_WARPS}
        arguments = (qkv, twos, lse, grad, delta, d_qkv, d_query, d_bias, *_geometry(qkv, part))
        options = {**_shape(qkv, part, size), **tile, "num_stages": NUM_STAGES}
        launches.append(Launch(_backward_kernel, (programs,), arguments, options))
    launch_all(("backward", *_key(qkv, size)), launches)
    d_qkv[..., 0, :] = d_query
    return d_qkv, d_bias.to(bias.dtype), d_padding.to(padding.dtype), d_pad_bias.to(pad_bias.dtype)


def _key(qkv: Tensor, size: int) -> tuple[object, ...]:
    """Return all that the compiled code of the kernels depends on."""
    return (*qkv.shape[1:], size, qkv.dtype, qkv.device)


def _in_twos(bias: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert `bias` to base 2: the kernels use exp2."""
    return (bias * LOG2E.value).to(dtype).contiguous()


def _block(part: WindowClass, most: int) -> int:
    return min(most, max(16, triton.next_power_of_2(part.height * part.width)))


def _geometry(qkv: Tensor, part: WindowClass) -> tuple[float, ...]:
    scale = qkv.shape[-1] ** -0.5
    return (*qkv.shape[1:3], part.top, part.left, part.num_down, part.num_across, scale)


def _shape(qkv: Tensor, part: WindowClass, size: int) -> dict[str, object]:
    return {
        "HEADS": qkv.shape[3],
        "DIMS": qkv.shape[5],
        "SIZE": size,
        "HEIGHT": part.height,
        "WIDTH": part.width,
        "PRECISION": "ieee" if qkv.dtype == torch.float32 else "tf32",  # used for float32 only
    }


@triton.jit
def _window(program, TILES: tl.constexpr, HEADS: tl.constexpr, num_down, num_across):
    """Return the tile within the window, the head, the window (down, across) and the batch row of a program."""
    tile, rest = program % TILES, program // TILES
    head, rest = rest % HEADS, rest // HEADS
    across, rest = rest % num_across, rest // num_across
    return tile, head, rest % num_down, across, rest // num_down


@triton.jit
def _load(place, mask, WHOLE: tl.constexpr):
    """Load values at `place`; zeros where `mask` is false. WHOLE: no mask is needed."""
    return tl.load(place) if WHOLE else tl.load(place, mask=mask, other=0.0)


@triton.jit
def _add(place, values, mask, WHOLE: tl.constexpr):
    if WHOLE:
        tl.atomic_add(place, values, sem="relaxed")
    else:
        tl.atomic_add(place, values, mask=mask, sem="relaxed")


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
    tile, head, down, across, row = _window(tl.program_id(0), tl.cdiv(NUM, BLOCK_Q), HEADS, num_down, num_across)
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
        k = _load(base + DIMS + k_place, is_key[:, None], WHOLE)
        v = _load(base + 2 * DIMS + k_place, is_key[:, None], WHOLE)
        b = _load(pairs, is_query[:, None] & is_key[None, :], WHOLE)
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


@triton.jit
def _delta_kernel(
    qkv, padding, pad_bias, out, lse, grad, delta, d_query, d_padding, d_pad_bias,
    num_tokens, scale,
    HEADS: tl.constexpr, DIMS: tl.constexpr, PADDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Compute each query's sum of grad * out, and all gradients through the padded key."""
    head, rest = tl.program_id(0) % HEADS, tl.program_id(0) // HEADS
    tiles = tl.cdiv(num_tokens, BLOCK)
    image = (rest // tiles).to(tl.int64) * num_tokens
    place = rest % tiles * BLOCK + tl.arange(0, BLOCK)
    is_token = place < num_tokens
    dims = tl.arange(0, DIMS)
    at = (image + place)[:, None] * (HEADS * DIMS) + head * DIMS + dims
    d_out = tl.load(grad + at, mask=is_token[:, None], other=0.0).to(tl.float32)
    result = tl.load(out + at, mask=is_token[:, None], other=0.0).to(tl.float32)
    product = tl.sum(d_out * result, axis=1)
    of_head = image * HEADS + head * num_tokens + place
    tl.store(delta + of_head, product, mask=is_token)
    d_q = tl.zeros([BLOCK, DIMS], tl.float32)
    if PADDED:
        q_place = (image + place)[:, None] * (HEADS * 3 * DIMS) + head * (3 * DIMS) + dims
        q = tl.load(qkv + q_place, mask=is_token[:, None], other=0.0).to(tl.float32)
        pad_key = tl.load(padding + head * (3 * DIMS) + DIMS + dims).to(tl.float32)
        pad_value = tl.load(padding + head * (3 * DIMS) + 2 * DIMS + dims).to(tl.float32)
        bias = tl.load(pad_bias + head * num_tokens + place, mask=is_token, other=float("-inf"))
        total = tl.load(lse + of_head, mask=is_token, other=0.0)
        share = tl.exp2(tl.sum(q * pad_key, axis=1) * scale * LOG2E + bias - total * LOG2E)
        d_score = share * (tl.sum(d_out * pad_value, axis=1) - product)
        d_q = d_score[:, None] * scale * pad_key
        tl.atomic_add(d_pad_bias + head * num_tokens + place, d_score, mask=is_token, sem="relaxed")
        d_key = tl.sum(d_score[:, None] * q, axis=0) * scale
        tl.atomic_add(d_padding + head * (3 * DIMS) + DIMS + dims, d_key, sem="relaxed")
        d_value = tl.sum(share[:, None] * d_out, axis=0)
        tl.atomic_add(d_padding + head * (3 * DIMS) + 2 * DIMS + dims, d_value, sem="relaxed")
    tl.store(d_query + at, d_q, mask=is_token[:, None])


@triton.jit
def _backward_kernel(
    qkv, bias, lse, grad, delta, d_qkv, d_query, d_bias,
    height, width, top, left, num_down, num_across, scale,
    HEADS: tl.constexpr, DIMS: tl.constexpr, SIZE: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Compute gradients of a block of keys. Scores are transposed (keys, queries), as the products need them."""
    NUM: tl.constexpr = HEIGHT * WIDTH
    WHOLE: tl.constexpr = NUM % BLOCK_Q == 0 and NUM % BLOCK_K == 0
    tile, head, down, across, row = _window(tl.program_id(0), tl.cdiv(NUM, BLOCK_K), HEADS, num_down, num_across)
    first = (top + down * SIZE) * width + left + across * SIZE
    image = row.to(tl.int64) * height * width
    dims = tl.arange(0, DIMS)
    key = tile * BLOCK_K + tl.arange(0, BLOCK_K)
    is_key = key < NUM
    k_row, k_column = key // WIDTH, key % WIDTH
    k_place = (first + k_row * width + k_column)[:, None] * (HEADS * 3 * DIMS) + dims
    base = qkv + image * (HEADS * 3 * DIMS) + head * (3 * DIMS)
    k = tl.load(base + DIMS + k_place, mask=is_key[:, None], other=0.0)
    v = tl.load(base + 2 * DIMS + k_place, mask=is_key[:, None], other=0.0)
    d_k = tl.zeros([BLOCK_K, DIMS], tl.float32)
    d_v = tl.zeros([BLOCK_K, DIMS], tl.float32)
    of_head = image * HEADS + head * height * width
    outputs = image * (HEADS * DIMS) + head * DIMS
    head_bias = head * ((2 * SIZE - 1) * SIZE * SIZE)
    for start in range(0, NUM, BLOCK_Q):
        query = start + tl.arange(0, BLOCK_Q)
        is_query = query < NUM
        q_row, q_column = query // WIDTH, query % WIDTH
        q_place = first + q_row * width + q_column
        o_place = outputs + q_place[:, None] * (HEADS * DIMS) + dims
        apart = k_row[:, None] - q_row[None, :] + (SIZE - 1)
        pairs = head_bias + (apart * SIZE + k_column[:, None]) * SIZE + q_column[None, :]
        is_pair = is_key[:, None] & is_query[None, :]
        q = _load(base + q_place[:, None] * (HEADS * 3 * DIMS) + dims, is_query[:, None], WHOLE)
        d_out = _load(grad + o_place, is_query[:, None], WHOLE)
        total, product = (
            _load(lse + of_head + q_place, is_query, WHOLE),
            _load(delta + of_head + q_place, is_query, WHOLE),
        )
        b = _load(bias + pairs, is_pair, WHOLE)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E) + b
        shares = tl.exp2(scores - (total * LOG2E)[None, :])
        if NUM % BLOCK_K != 0:  # it may be infinite for a key outside the window
            shares = tl.where(is_key[:, None], shares, 0.0)
        d_v = tl.dot(shares.to(d_out.dtype), d_out, d_v, input_precision=PRECISION)
        d_shares = tl.dot(v, tl.trans(d_out), input_precision=PRECISION)
        d_scores = shares * (d_shares - product[None, :])
        _add(d_bias + pairs, d_scores, is_pair, WHOLE)
        d_scores = d_scores.to(q.dtype)
        d_k = tl.dot(d_scores, q, d_k, input_precision=PRECISION)
        d_q = tl.dot(tl.trans(d_scores), k, input_precision=PRECISION) * scale
        _add(d_query + o_place, d_q, is_query[:, None], WHOLE)
    grads = d_qkv + image * (HEADS * 3 * DIMS) + head * (3 * DIMS) + k_place
    tl.store(grads + DIMS, (d_k * scale).to(d_qkv.dtype.element_ty), mask=is_key[:, None])
    tl.store(grads + 2 * DIMS, d_v.to(d_qkv.dtype.element_ty), mask=is_key[:, None])
