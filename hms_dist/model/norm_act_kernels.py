"""The operators `norm_act` and `norm_act_backward` on a GPU: Triton kernels, which recompute intermediate values.

A program processes a stripe of the wide rows of one batch row (see `norm_moments_kernels`), in a block of columns, and
keeps the channels' parameters in registers.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from hms_dist.model.launches import Launch
from hms_dist.model.norm_moments_kernels import BLOCK_COLUMNS, SIZES, STAGES, SUMS, over_rows, stripes, tile, wide_size

ROWS_A_PROGRAM = 128
"""Wide rows of a program of an elementwise kernel."""


def apply(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None, keep: Tensor | None,
    piece: Tensor, places: int, act: int,
) -> Tensor:  # fmt: skip
    """Compute the output of the operator; arguments as `norm_act.plain_apply`."""
    x, shortcut = x.contiguous(), None if shortcut is None else shortcut.contiguous()
    wide, columns = wide_size(x, places)
    chunks = triton.cdiv(wide, ROWS_A_PROGRAM)
    out = torch.empty_like(x)
    _apply_kernel[len(x) // places * chunks, triton.cdiv(columns, BLOCK_COLUMNS)](
        *(x, weight, bias, mean.contiguous(), rstd.contiguous(), _or(shortcut, x), _or(keep, mean), piece, out),
        *(wide, columns, x.shape[1], chunks), STRIPE=ROWS_A_PROGRAM, **_kind(shortcut, keep, act), **tile(),
    )  # fmt: skip
    return out


def backward_sums(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, starts: Tensor, piece: Tensor, places: int, act: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Sum the norm's gradient, and its product with the normalised x, over each piece: float32 [pieces, 2, channels].

    Also returns the gradient to pass to `backward_apply`, and that of the shortcut (empty without one).
    """
    grad, x, shortcut = grad.contiguous(), x.contiguous(), None if shortcut is None else shortcut.contiguous()
    wide, columns = wide_size(x, places)
    num_stripes, stripe = stripes(len(x) // places, wide)
    sums = x.new_empty(2, len(x) // places * num_stripes, columns, dtype=torch.float32)
    d_shortcut = x.new_empty(0, x.shape[1]) if shortcut is None else torch.empty_like(shortcut)
    launch = Launch(
        _backward_sums_kernel,
        (sums.shape[1], triton.cdiv(columns, BLOCK_COLUMNS)),
        (grad, x, weight, bias, mean.contiguous(), rstd.contiguous(), _or(shortcut, x), _or(keep, mean), piece,
         d_shortcut, sums, wide, columns, x.shape[1], num_stripes, stripe),
        {**_kind(shortcut, keep, act), **tile()},
    )  # fmt: skip
    found = x.new_empty(len(starts) - 1, 2, x.shape[1], dtype=torch.float32)
    over_rows(launch, sums, x, found, starts, places, 1, 0.0, kind=SUMS)
    return found, grad if shortcut is None else d_shortcut, d_shortcut


def backward_apply(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, shortcut: Tensor | None,
    keep: Tensor | None, sums: Tensor, share: float, piece: Tensor, places: int, act: int,
) -> Tensor:  # fmt: skip
    """Compute the gradient of x.

    `sums` [pieces, 2, channels]: of whole groups. `share`: 1 / number of values of a channel in a group. `grad`: with
    respect to the output, or (`act` 0) to the activation's input.
    """
    grad, x = grad.contiguous(), x.contiguous()
    wide, columns = wide_size(x, places)
    chunks = triton.cdiv(wide, ROWS_A_PROGRAM)
    d_x = torch.empty_like(x)
    _backward_apply_kernel[len(x) // places * chunks, triton.cdiv(columns, BLOCK_COLUMNS)](
        *(grad, x, weight, bias, mean.contiguous(), rstd.contiguous(), _or(shortcut, x), _or(keep, mean), piece),
        *(sums.contiguous(), d_x, wide, columns, x.shape[1], chunks, share),
        STRIPE=ROWS_A_PROGRAM, **_kind(shortcut, keep, act), **tile(),
    )  # fmt: skip
    return d_x


def _kind(shortcut: Tensor | None, keep: Tensor | None, act: int) -> dict[str, int]:
    return {"SHORTCUT": shortcut is not None, "KEEP": keep is not None, "ACT": act}


def _or(tensor: Tensor | None, unused: Tensor) -> Tensor:
    """Return `tensor`, or for an argument that the kernel does not read a valid pointer."""
    return unused if tensor is None else tensor


@triton.jit
def _phi(z):
    """Normal distribution (error below 1e-7; Abramowitz and Stegun, 7.1.26) and density at z."""
    decay = tl.exp2(z * z * -0.7213475204444817)
    t = libdevice.fast_dividef(1.0, 1.0 + 0.23164189 * tl.abs(z))
    tail = t * (0.127414796 + t * (-0.142248368 + t * (0.7107068705 + t * (-0.7265760135 + t * 0.5307027145))))
    tail = tail * decay
    return tl.where(z < 0, tail, 1.0 - tail), decay * 0.3989422804014327


@triton.jit
def _sigmoid(z):
    return libdevice.fast_dividef(1.0, 1.0 + tl.exp2(z * -1.4426950408889634))


@triton.jit
def activated(z, ACT: tl.constexpr):
    """Apply the activation with number ACT in `norm_act.ACTIVATIONS`."""
    if ACT == 1:
        z = z * _phi(z)[0]
    if ACT == 2:
        z = z * _sigmoid(z)
    if ACT == 3:
        z = tl.maximum(z, 0.0)
    if ACT == 4:
        z = z * tl.minimum(tl.maximum(z + 3.0, 0.0), 6.0) * 0.16666666666666666
    return z


@triton.jit
def slope_at(z, ACT: tl.constexpr):
    """Compute the derivative of the activation."""
    if ACT == 1:
        below, density = _phi(z)
        slope = below + z * density
    if ACT == 2:
        share = _sigmoid(z)
        slope = share * (1.0 + z * (1.0 - share))
    if ACT == 3:
        slope = tl.where(z > 0, 1.0, 0.0)
    if ACT == 4:
        slope = tl.where(z < -3.0, 0.0, tl.where(z <= 3.0, z * 0.3333333333333333 + 0.5, 1.0))
    return slope


@triton.jit(do_not_specialize=SIZES)
def _apply_kernel(
    x, weight, bias, mean, rstd, shortcut, keep, piece, out, wide, columns, channels, chunks,
    STRIPE: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, ACT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % channels
    number = tl.program_id(0) // chunks
    first_row, begin = number * wide, (tl.program_id(0) % chunks) * STRIPE
    group = tl.load(piece + number) * channels + channel
    factor = tl.load(weight + channel).to(tl.float32) * tl.load(rstd + group)
    offset = tl.load(bias + channel).to(tl.float32) - tl.load(mean + group) * factor
    for start in tl.range(0, STRIPE, BLOCK_R, num_stages=STAGES):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < wide)[:, None] & inside[None, :]
        place = (first_row + row).to(tl.int64)[:, None] * columns + column[None, :]
        z = tl.load(x + place, mask=here, other=0.0).to(tl.float32) * factor[None, :] + offset[None, :]
        if KEEP:
            z = z * tl.load(keep + number)
        if SHORTCUT:
            z += tl.load(shortcut + place, mask=here, other=0.0).to(tl.float32)
        z = activated(z, ACT)
        tl.store(out + place, z.to(out.dtype.element_ty), mask=here)


@triton.jit(do_not_specialize=SIZES)
def _backward_sums_kernel(
    grad, x, weight, bias, mean, rstd, shortcut, keep, piece, d_shortcut, sums,
    wide, columns, channels, num_stripes, stripe, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, ACT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sum the norm's gradient, and its product with the normalised x; write the shortcut's gradient, if there is
    one."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % channels
    number = tl.program_id(0) // num_stripes
    first_row, begin = number * wide, (tl.program_id(0) % num_stripes) * stripe
    group = tl.load(piece + number) * channels + channel
    centre, inverse = tl.load(mean + group), tl.load(rstd + group)
    slope, offset = tl.load(weight + channel).to(tl.float32), tl.load(bias + channel).to(tl.float32)
    first = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for start in tl.range(0, stripe, BLOCK_R, num_stages=STAGES):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < wide)[:, None] & inside[None, :]
        place = (first_row + row).to(tl.int64)[:, None] * columns + column[None, :]
        d = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
        unit = (tl.load(x + place, mask=here, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        if ACT != 0:
            z = unit * slope[None, :] + offset[None, :]
            if KEEP:
                z = z * tl.load(keep + number)
            if SHORTCUT:
                z += tl.load(shortcut + place, mask=here, other=0.0).to(tl.float32)
            d = d * slope_at(z, ACT)
        if SHORTCUT:
            tl.store(d_shortcut + place, d.to(d_shortcut.dtype.element_ty), mask=here)
        if KEEP:
            d = d * tl.load(keep + number)
        first += d
        second += d * unit
    at = sums + tl.program_id(0).to(tl.int64) * columns + column
    tl.store(at, tl.sum(first, axis=0), mask=inside)
    tl.store(at + tl.num_programs(0).to(tl.int64) * columns, tl.sum(second, axis=0), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _backward_apply_kernel(
    grad, x, weight, bias, mean, rstd, shortcut, keep, piece, group_sums, d_x, wide, columns, channels, chunks, share,
    STRIPE: tl.constexpr, SHORTCUT: tl.constexpr, KEEP: tl.constexpr, ACT: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Compute d_x. `share`: 1 / values of a channel in a group. With a shortcut, `grad` is d_shortcut and ACT is 0."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    channel = column % channels
    number = tl.program_id(0) // chunks
    first_row, begin = number * wide, (tl.program_id(0) % chunks) * STRIPE
    which = tl.load(piece + number)
    group = which * channels + channel
    centre, inverse = tl.load(mean + group), tl.load(rstd + group)
    slope, offset = tl.load(weight + channel).to(tl.float32), tl.load(bias + channel).to(tl.float32)
    of_all = tl.load(group_sums + 2 * which * channels + channel) * share
    of_unit = tl.load(group_sums + (2 * which + 1) * channels + channel) * share
    for start in tl.range(0, STRIPE, BLOCK_R, num_stages=STAGES):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < wide)[:, None] & inside[None, :]
        place = (first_row + row).to(tl.int64)[:, None] * columns + column[None, :]
        d = tl.load(grad + place, mask=here, other=0.0).to(tl.float32)
        unit = (tl.load(x + place, mask=here, other=0.0).to(tl.float32) - centre[None, :]) * inverse[None, :]
        if ACT != 0:
            z = unit * slope[None, :] + offset[None, :]
            if KEEP:
                z = z * tl.load(keep + number)
            d = d * slope_at(z, ACT)
        if KEEP:
            d = d * tl.load(keep + number)
        d = (slope * inverse)[None, :] * (d - of_all[None, :] - unit * of_unit[None, :])
        tl.store(d_x + place, d.to(d_x.dtype.element_ty), mask=here)
