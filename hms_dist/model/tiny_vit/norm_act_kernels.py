"""The operators of `norm_act` on a GPU: Triton kernels, none of which writes what another can compute again.

Rows of few channels are read several at once as one wide row, so that neighbouring threads read neighbouring bytes.
A program takes a stripe of rows in a block of columns and keeps the channels' parameters in registers. Sums over rows
are taken by stripe in float32, about a first guess of the mean, and then over stripes in float64.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK_ROWS, BLOCK_COLUMNS, NUM_WARPS = 16, 128, 4
"""Tile of all kernels."""
ROWS_A_PROGRAM = 128
"""Rows of an elementwise program."""
NUM_STRIPES = 512
"""Programs that share a column block's sums."""
MOST_FOLDED = 8
"""Rows that are read as one, at most."""
BLOCK_CHANNELS = 16
"""Channels whose stripes a program sums up."""


def moments(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / standard deviation of each channel, float32."""
    x = x.contiguous()
    fold, rows, columns = _wide(x)
    stripe = _stripe(rows)
    sums = x.new_empty(2, triton.cdiv(rows, stripe), columns, dtype=torch.float32)
    grid = (triton.cdiv(rows, stripe), triton.cdiv(columns, BLOCK_COLUMNS))
    _sums_kernel[grid](x, sums, rows, columns, CHANNELS=x.shape[1], STRIPE=stripe, **_tile())
    mean, rstd = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    _over_stripes(sums, x, mean, rstd, eps, fold, is_moments=True)
    return mean, rstd


def apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    places: int, gelu: bool,
) -> Tensor:  # fmt: skip
    """The output."""
    x, shortcut = x.contiguous(), None if shortcut is None else shortcut.contiguous()
    fold, rows, columns = _wide(x, places if keep is not None else None)
    out = torch.empty_like(x)
    grid = (triton.cdiv(rows, ROWS_A_PROGRAM), triton.cdiv(columns, BLOCK_COLUMNS))
    _apply_kernel[grid](
        *(x, weight, bias, mean, rstd, _or(shortcut, x), _or(keep, mean), out, rows, columns, places // fold),
        CHANNELS=x.shape[1], STRIPE=ROWS_A_PROGRAM, **_kind(shortcut, keep, gelu), **_tile(),
    )  # fmt: skip
    return out


def backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, places: int, gelu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, weight, bias and shortcut, in their types."""
    grad, x, shortcut = grad.contiguous(), x.contiguous(), None if shortcut is None else shortcut.contiguous()
    fold, rows, columns = _wide(x, places if keep is not None else None)
    stripe = _stripe(rows)
    sums = x.new_empty(2, triton.cdiv(rows, stripe), columns, dtype=torch.float32)
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else torch.empty_like(shortcut)
    kind = {"CHANNELS": x.shape[1], **_kind(shortcut, keep, gelu), **_tile()}
    norm = (weight, bias, mean, rstd, _or(shortcut, x), _or(keep, mean))
    grid = (triton.cdiv(rows, stripe), triton.cdiv(columns, BLOCK_COLUMNS))
    _backward_sums_kernel[grid](
        *(grad, x, *norm, d_shortcut, sums, rows, columns, places // fold), STRIPE=stripe, **kind
    )
    d_bias, d_weight = (x.new_empty(x.shape[1], dtype=torch.float32) for _ in range(2))
    _over_stripes(sums, x, d_bias, d_weight, 0.0, fold, is_moments=False)
    d_x = torch.empty_like(x)
    grid = (triton.cdiv(rows, ROWS_A_PROGRAM), grid[1])
    done = shortcut is not None  # the slope of GELU is in the gradient of the shortcut already
    _backward_apply_kernel[grid](
        *(d_shortcut if done else grad, x, *norm, d_weight, d_bias, d_x, rows, columns, places // fold, 1 / len(x)),
        STRIPE=ROWS_A_PROGRAM, **{**kind, "GELU": gelu and not done},
    )  # fmt: skip
    return d_x, d_weight.to(weight.dtype), d_bias.to(bias.dtype), d_shortcut


def _wide(x: Tensor, places: int | None = None) -> tuple[int, int, int]:
    """How many rows are read as one, rows and columns then: until they fill whole blocks, within one picture's rows."""
    most = len(x) if places is None else places
    fold = 1
    while x.shape[1] * fold % BLOCK_COLUMNS and fold < MOST_FOLDED and most % (2 * fold) == 0:
        fold *= 2
    return fold, len(x) // fold, x.shape[1] * fold


def _over_stripes(
    sums: Tensor, x: Tensor, first: Tensor, second: Tensor, eps: float, fold: int, *, is_moments: bool
) -> None:
    """Both sums of each channel, or the moments that they give, into `first` and `second`."""
    channels, parts = x.shape[1], sums.shape[1] * fold
    _over_stripes_kernel[(triton.cdiv(channels, BLOCK_CHANNELS),)](
        *(sums, x, first, second, parts, channels, 1 / len(x), eps),
        MOMENTS=is_moments, BLOCK_P=64, BLOCK_C=BLOCK_CHANNELS, NUM=triton.cdiv(parts, 64) * 64,
    )  # fmt: skip


def _stripe(rows: int) -> int:
    return max(BLOCK_ROWS, triton.cdiv(triton.cdiv(rows, NUM_STRIPES), BLOCK_ROWS) * BLOCK_ROWS)


def _kind(shortcut: Tensor | None, keep: Tensor | None, gelu: bool) -> dict[str, bool]:
    return {"SHORTCUT": shortcut is not None, "KEEP": keep is not None, "GELU": gelu}


def _tile() -> dict[str, int]:
    return {"BLOCK_R": BLOCK_ROWS, "BLOCK_C": BLOCK_COLUMNS, "num_warps": NUM_WARPS}


def _or(tensor: Tensor | None, stand_in: Tensor) -> Tensor:
    """A pointer for an argument that the kernel will not look at."""
    return stand_in if tensor is None else tensor


@triton.jit
def _phi(z):
    """Normal distribution and density at z; error of the first under 1e-7 (Abramowitz and Stegun, 7.1.26)."""
    decay = tl.exp2(z * z * -0.7213475204444817)
    t = 1.0 / (1.0 + 0.23164189 * tl.abs(z))
    tail = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    tail = tail * decay
    return tl.where(z < 0, tail, 1.0 - tail), decay * 0.3989422804014327


@triton.jit
def _sums_kernel(
    x, sums, rows, columns,
    CHANNELS: tl.constexpr, STRIPE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of x - x[0] and of its square, for each stripe of rows and column."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    guess = tl.load(x + column % CHANNELS).to(tl.float32)
    first = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    begin = tl.program_id(0) * STRIPE
    for start in range(0, STRIPE, BLOCK_R):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < rows)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        value = tl.where(here, value - guess[None, :], 0.0)
        first += value
        second += value * value
    at = sums + tl.program_id(0) * columns + column
    tl.store(at, tl.sum(first, axis=0), mask=inside)
    tl.store(at + tl.num_programs(0) * columns, tl.sum(second, axis=0), mask=inside)


@triton.jit
def _over_stripes_kernel(
    sums, x, first, second, parts, channels, share, eps,
    MOMENTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr, NUM: tl.constexpr,
):  # fmt: skip
    channel = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    one = tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    other = tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for start in range(0, NUM, BLOCK_P):
        part = start + tl.arange(0, BLOCK_P)
        here = (part < parts)[:, None] & inside[None, :]
        at = sums + part[:, None] * channels + channel[None, :]
        one += tl.load(at, mask=here, other=0.0).to(tl.float64)
        other += tl.load(at + parts * channels, mask=here, other=0.0).to(tl.float64)
    one_sum, other_sum = tl.sum(one, axis=0), tl.sum(other, axis=0)
    if MOMENTS:  # sums of x - x[0] and of its square
        apart = one_sum * share
        variance = tl.maximum(other_sum * share - apart * apart, 0.0)
        one_sum = tl.load(x + channel, mask=inside, other=0.0).to(tl.float64) + apart
        other_sum = 1.0 / tl.sqrt(variance + eps)
    tl.store(first + channel, one_sum.to(tl.float32), mask=inside)
    tl.store(second + channel, other_sum.to(tl.float32), mask=inside)


@triton.jit
def _apply_kernel(
    x, weight, bias, mean, rstd, shortcut, keep, out, rows, columns, places,
    CHANNELS: tl.constexpr, STRIPE: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, GELU: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % CHANNELS
    factor = tl.load(weight + channel).to(tl.float32) * tl.load(rstd + channel)
    offset = tl.load(bias + channel).to(tl.float32) - tl.load(mean + channel) * factor
    begin = tl.program_id(0) * STRIPE
    for start in range(0, STRIPE, BLOCK_R):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < rows)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        z = tl.load(x + place, mask=here, other=0.0).to(tl.float32) * factor[None, :] + offset[None, :]
        if KEEP:
            z = z * tl.load(keep + row // places, mask=row < rows, other=0.0)[:, None]
        if SHORTCUT:
            z += tl.load(shortcut + place, mask=here, other=0.0).to(tl.float32)
        if GELU:
            z = z * _phi(z)[0]
        tl.store(out + place, z.to(out.dtype.element_ty), mask=here)


@triton.jit
def _backward_sums_kernel(
    grad, x, weight, bias, mean, rstd, shortcut, keep, d_shortcut, sums, rows, columns, places,
    CHANNELS: tl.constexpr, STRIPE: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, GELU: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sums of the norm's gradient, and of it times the normalised x; the gradient of the shortcut, if there is one."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % CHANNELS
    centre, inverse = tl.load(mean + channel), tl.load(rstd + channel)
    slope, offset = tl.load(weight + channel).to(tl.float32), tl.load(bias + channel).to(tl.float32)
    first = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    begin = tl.program_id(0) * STRIPE
    for start in range(0, STRIPE, BLOCK_R):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < rows)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        d = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
        unit = (tl.load(x + place, mask=here, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        if GELU:
            z = unit * slope[None, :] + offset[None, :]
            if KEEP:
                z = z * tl.load(keep + row // places, mask=row < rows, other=0.0)[:, None]
            if SHORTCUT:
                z += tl.load(shortcut + place, mask=here, other=0.0).to(tl.float32)
            below, density = _phi(z)
            d = d * (below + z * density)
        if SHORTCUT:
            tl.store(d_shortcut + place, d.to(d_shortcut.dtype.element_ty), mask=here)
        if KEEP:
            d = d * tl.load(keep + row // places, mask=row < rows, other=0.0)[:, None]
        first += d
        second += d * unit
    at = sums + tl.program_id(0) * columns + column
    tl.store(at, tl.sum(first, axis=0), mask=inside)
    tl.store(at + tl.num_programs(0) * columns, tl.sum(second, axis=0), mask=inside)


@triton.jit
def _backward_apply_kernel(
    grad, x, weight, bias, mean, rstd, shortcut, keep, d_weight, d_bias, d_x, rows, columns, places, share,
    CHANNELS: tl.constexpr, STRIPE: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, GELU: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """`share` is 1 / rows of a channel."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % CHANNELS
    centre, inverse = tl.load(mean + channel), tl.load(rstd + channel)
    slope, offset = tl.load(weight + channel).to(tl.float32), tl.load(bias + channel).to(tl.float32)
    of_unit, of_all = tl.load(d_weight + channel) * share, tl.load(d_bias + channel) * share
    begin = tl.program_id(0) * STRIPE
    for start in range(0, STRIPE, BLOCK_R):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < rows)[:, None] & inside[None, :]
        place = row.to(tl.int64)[:, None] * columns + column[None, :]
        d = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
        unit = (tl.load(x + place, mask=here, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        if GELU:
            z = unit * slope[None, :] + offset[None, :]
            if KEEP:
                z = z * tl.load(keep + row // places, mask=row < rows, other=0.0)[:, None]
            below, density = _phi(z)
            d = d * (below + z * density)
        if KEEP:
            d = d * tl.load(keep + row // places, mask=row < rows, other=0.0)[:, None]
        d = (slope * inverse)[None, :] * (d - of_all[None, :] - unit * of_unit[None, :])
        tl.store(d_x + place, d.to(d_x.dtype.element_ty), mask=here)
