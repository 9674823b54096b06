"""The gradients of `window_attention` on a GPU: Triton kernels after FlashAttention-2 (Dao, 2023).

A program computes a rectangle of keys of a window, for one rectangle of queries after the other. Gradients of queries
and biases are summed by atomic additions in float32, so their last bits vary between runs. The memory for these limits
the kernel, so pairs of a tile that share a bias are summed first: those with the same difference of rows and the same
columns, by a product with a constant matrix.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hms_dist.model.tiny_vit.window_kernels import LOG2E, NUM_STAGES, geometry, in_twos, load, shape, window_of
from hms_dist.model.tiny_vit.windows import window_classes

QUERY_ROWS, KEY_ROWS, TILE_COLUMNS, NUM_WARPS = 4, 16, 8, 4
"""Tile: rows of its rectangle of queries and of keys, and columns of both."""
BLOCK_TOKENS = 64
"""Tile of the delta kernel."""


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
    twos, pad_twos = in_twos(bias, qkv.dtype), in_twos(pad_bias, torch.float32)
    _delta_kernel[(triton.cdiv(height * width, BLOCK_TOKENS) * heads * batch,)](
        *(qkv, padding, pad_twos, out, lse, grad, delta, d_query, d_padding, d_pad_bias),
        *(height * width, dims**-0.5),
        HEADS=heads,
        DIMS=dims,
        PADDED=height % size > 0 or width % size > 0,
        BLOCK=BLOCK_TOKENS,
    )
    for part in window_classes(height, width, size):
        rows = KEY_ROWS if part.height > KEY_ROWS // 2 else KEY_ROWS // 2
        tiles = triton.cdiv(part.height, rows) * triton.cdiv(part.width, TILE_COLUMNS)
        _backward_kernel[(tiles * part.num_down * part.num_across * heads * batch,)](
            *(qkv, twos, lse, grad, delta, d_qkv, d_query, d_bias),
            *geometry(qkv, part),
            **shape(qkv, part, size),
            ROWS_Q=QUERY_ROWS,
            ROWS_K=rows,
            COLUMNS=TILE_COLUMNS,
            APART=triton.next_power_of_2(rows + QUERY_ROWS - 1),
            num_warps=NUM_WARPS,
            num_stages=NUM_STAGES,
        )
    d_qkv[..., 0, :] = d_query
    return d_qkv, d_bias.to(bias.dtype), d_padding.to(padding.dtype), d_pad_bias.to(pad_bias.dtype)


@triton.jit
def _add(place, values, mask, WHOLE: tl.constexpr):
    if WHOLE:
        tl.atomic_add(place, values, sem="relaxed")
    else:
        tl.atomic_add(place, values, mask=mask, sem="relaxed")


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
    PRECISION: tl.constexpr, ROWS_Q: tl.constexpr, ROWS_K: tl.constexpr, COLUMNS: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """Compute gradients of a rectangle of keys. Scores are transposed (keys, queries), as the products need them."""
    ACROSS: tl.constexpr = (WIDTH + COLUMNS - 1) // COLUMNS
    WHOLE: tl.constexpr = HEIGHT % ROWS_K == 0 and HEIGHT % ROWS_Q == 0 and WIDTH % COLUMNS == 0
    TILES: tl.constexpr = (HEIGHT + ROWS_K - 1) // ROWS_K * ACROSS
    tile, head, down, across, row = window_of(tl.program_id(0), TILES, HEADS, num_down, num_across)
    first = (top + down * SIZE) * width + left + across * SIZE
    image = row.to(tl.int64) * height * width
    dims = tl.arange(0, DIMS)
    key, query = tl.arange(0, ROWS_K * COLUMNS), tl.arange(0, ROWS_Q * COLUMNS)
    k_top, k_left = tile // ACROSS * ROWS_K, tile % ACROSS * COLUMNS
    k_row, k_column = k_top + key // COLUMNS, k_left + key % COLUMNS
    is_key = (k_row < HEIGHT) & (k_column < WIDTH)
    k_place = (first + k_row * width + k_column)[:, None] * (HEADS * 3 * DIMS) + dims
    base = qkv + image * (HEADS * 3 * DIMS) + head * (3 * DIMS)
    k = tl.load(base + DIMS + k_place, mask=is_key[:, None], other=0.0)
    v = tl.load(base + 2 * DIMS + k_place, mask=is_key[:, None], other=0.0)
    d_k = tl.zeros([ROWS_K * COLUMNS, DIMS], tl.float32)
    d_v = tl.zeros([ROWS_K * COLUMNS, DIMS], tl.float32)
    of_head = image * HEADS + head * height * width
    outputs = image * (HEADS * DIMS) + head * DIMS
    head_bias = head * ((2 * SIZE - 1) * SIZE * SIZE)
    k_part = head_bias + ((k_row + (SIZE - 1)) * SIZE + k_column) * SIZE
    # Whether a pair of rows has a difference: [differences, pairs].
    pair = tl.arange(0, ROWS_K * ROWS_Q)
    is_of = (pair // ROWS_Q - pair % ROWS_Q + (ROWS_Q - 1))[None, :] == tl.arange(0, APART)[:, None]
    for number in range(0, (HEIGHT + ROWS_Q - 1) // ROWS_Q * ACROSS):
        q_top, q_left = number // ACROSS * ROWS_Q, number % ACROSS * COLUMNS
        q_row, q_column = q_top + query // COLUMNS, q_left + query % COLUMNS
        is_query = (q_row < HEIGHT) & (q_column < WIDTH)
        q_place = first + q_row * width + q_column
        o_place = outputs + q_place[:, None] * (HEADS * DIMS) + dims
        pairs = k_part[:, None] + (q_column - q_row * (SIZE * SIZE))[None, :]
        q = load(base + q_place[:, None] * (HEADS * 3 * DIMS) + dims, is_query[:, None], WHOLE)
        d_out = load(grad + o_place, is_query[:, None], WHOLE)
        total, product = (
            load(lse + of_head + q_place, is_query, WHOLE),
            load(delta + of_head + q_place, is_query, WHOLE),
        )
        b = load(bias + pairs, is_key[:, None] & is_query[None, :], WHOLE)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * (scale * LOG2E) + b
        shares = tl.exp2(scores - (total * LOG2E)[None, :])
        if not WHOLE:  # it may be infinite for a key outside the window
            shares = tl.where(is_key[:, None] & is_query[None, :], shares, 0.0)
        d_v = tl.dot(shares.to(d_out.dtype), d_out, d_v, input_precision=PRECISION)
        d_shares = tl.dot(v, tl.trans(d_out), input_precision=PRECISION)
        d_scores = (shares * (d_shares - product[None, :])).to(q.dtype)
        d_k = tl.dot(d_scores, q, d_k, input_precision=PRECISION)
        d_q = tl.dot(tl.trans(d_scores), k, input_precision=PRECISION) * scale
        _add(d_query + o_place, d_q, is_query[:, None], WHOLE)
        _add_to_bias(
            d_bias + head_bias, d_scores, is_of, k_top - q_top + (SIZE - ROWS_Q), k_left, q_left,
            SIZE, PRECISION, ROWS_Q, ROWS_K, COLUMNS, APART, WHOLE,
        )  # fmt: skip
    grads = d_qkv + image * (HEADS * 3 * DIMS) + head * (3 * DIMS) + k_place
    tl.store(grads + DIMS, (d_k * scale).to(d_qkv.dtype.element_ty), mask=is_key[:, None])
    tl.store(grads + 2 * DIMS, d_v.to(d_qkv.dtype.element_ty), mask=is_key[:, None])


@triton.jit
def _add_to_bias(
    d_bias, d_scores, is_of, least, k_left, q_left,
    SIZE: tl.constexpr, PRECISION: tl.constexpr, ROWS_Q: tl.constexpr, ROWS_K: tl.constexpr, COLUMNS: tl.constexpr,
    APART: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Add the gradients of a tile's scores to those of the biases of a head. `least`: smallest difference of rows."""
    by_rows = tl.permute(tl.reshape(d_scores, [ROWS_K, COLUMNS, ROWS_Q, COLUMNS]), (0, 2, 1, 3))
    by_rows = tl.reshape(by_rows, [ROWS_K * ROWS_Q, COLUMNS * COLUMNS])
    sums = tl.dot(is_of.to(d_scores.dtype), by_rows, input_precision=PRECISION)
    apart, columns = tl.arange(0, APART), tl.arange(0, COLUMNS * COLUMNS)
    difference, k_column, q_column = least + apart, k_left + columns // COLUMNS, q_left + columns % COLUMNS
    place = ((difference * SIZE)[:, None] + k_column[None, :]) * SIZE + q_column[None, :]
    inside = (apart < ROWS_K + ROWS_Q - 1)[:, None]
    if not WHOLE:  # sums of the others are zero
        inside &= ((difference >= 0) & (difference < 2 * SIZE - 1))[:, None]
        inside &= ((k_column < SIZE) & (q_column < SIZE))[None, :]
    tl.atomic_add(d_bias + place, sums, mask=inside, sem="relaxed")
