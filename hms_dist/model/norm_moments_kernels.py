"""The operator `norm_moments` on a GPU: Triton kernels that sum activations over places, stripes and rows.

With few channels, several places are read as one wide row, so that neighbouring threads read neighbouring bytes. A
program sums a stripe of the wide rows of one batch row, in a block of columns, in float32 and relative to the row's
first value; stripes of a row, and then rows of a group, are summed in float64.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from hms_dist.model.launches import Launch, launch_all

SUMS, PARTS, MOMENTS = 0, 1, 2
"""Results of `over_rows`: sums; sums over rows of mean and of variance + mean^2; moments of whole groups."""
BLOCK_ROWS, BLOCK_COLUMNS, NUM_WARPS = 16, 128, 4
"""Tile of the kernels that read activations, `norm_act_kernels` included."""
STAGES = tl.constexpr(3)
"""Tiles of a loop that are being loaded while another is computed; without them a kernel waits for memory."""
NUM_STRIPES = 512
"""Number of programs that compute the sums of a column block."""
SIZES = ("wide", "channels", "num_stripes", "stripe", "chunks", "apart", "parts", "places")
"""Arguments whose values do not change the compiled code: one compilation serves all layers and passes."""
MOST_FOLDED = 8
"""Largest number of places in a wide row."""
BLOCK_CHANNELS, BLOCK_PARTS = 16, 64
"""Tile of the kernel that sums the stripes of a row."""
BLOCK_WIDE, BLOCK_GROUP = 64, 8
"""Tile of the kernel that sums rows: channels, and rows."""


def moments(x: Tensor, starts: Tensor, places: int, group_size: int, eps: float) -> Tensor:
    """Compute mean, 1 / deviation and unbiased variance of each whole group: float32 [3, groups, channels]."""
    found = x.new_empty(3, len(starts) - 1, x.shape[1], dtype=torch.float32)
    over_rows(*_row_sums(x, places), x, found, starts, places, group_size, eps, kind=MOMENTS)
    return found


def row_moments(x: Tensor, starts: Tensor, places: int) -> Tensor:
    """Sum mean, and variance + mean^2, over the rows of each piece: float64 [pieces, 2, channels]."""
    found = x.new_empty(len(starts) - 1, 2, x.shape[1], dtype=torch.float64)
    over_rows(*_row_sums(x, places), x, found, starts, places, 1, 0.0, kind=PARTS)
    return found


def over_rows(
    launch: Launch, sums: Tensor, x: Tensor, found: Tensor, starts: Tensor, places: int, group_size: int, eps: float,
    *, kind: int,
) -> None:  # fmt: skip
    """Launch the kernel that writes `sums`, then reduce stripes and rows of each piece of `x` into `found`.

    `sums`: float32 [2, rows * stripes, columns]. `x` [rows * places, channels], any float dtype. `starts`: int32
    [pieces + 1], first row of each piece. `found`: float32 or float64 [pieces, 2, channels], or [3, pieces, channels]
    for MOMENTS.
    """
    channels, count, num_rows = x.shape[1], group_size * places, len(x) // places
    parts = sums.shape[1] * (sums.shape[2] // channels) // num_rows
    of_rows = x.new_empty(num_rows, 2, channels, dtype=torch.float64)
    over_stripes = Launch(
        _over_stripes_kernel,
        (num_rows, triton.cdiv(channels, BLOCK_CHANNELS)),
        (sums, x, of_rows, sums[0].numel(), parts, channels, places, 1 / places),
        {"KIND": kind, "BLOCK_P": BLOCK_PARTS, "BLOCK_C": BLOCK_CHANNELS},
    )
    over_group = Launch(
        _over_rows_kernel,
        (len(starts) - 1, triton.cdiv(channels, BLOCK_WIDE)),
        (of_rows, found, starts, channels, 1 / group_size, count / max(count - 1, 1), eps),
        {"KIND": kind, "BLOCK_R": BLOCK_GROUP, "BLOCK_C": BLOCK_WIDE},
    )
    key = (launch.kernel.__name__, *launch.options.items(), kind, x.dtype, x.device)
    launch_all(key, [launch, over_stripes, over_group])


def wide_size(x: Tensor, places: int) -> tuple[int, int]:
    """Number of wide rows in a batch row of `x` [rows * places, channels], and of their columns.

    Places are folded into columns until these fill whole blocks.
    """
    fold = 1
    while x.shape[1] * fold % BLOCK_COLUMNS and fold < MOST_FOLDED and places % (2 * fold) == 0:
        fold *= 2
    return places // fold, x.shape[1] * fold


def stripes(num_rows: int, wide: int) -> tuple[int, int]:
    """Number of stripes in a batch row, and of wide rows in a stripe."""
    wanted = max(NUM_STRIPES // num_rows, 1)
    stripe = triton.cdiv(triton.cdiv(wide, wanted), BLOCK_ROWS) * BLOCK_ROWS
    return triton.cdiv(wide, stripe), stripe


def tile() -> dict[str, int]:
    """Return the tile of the kernels that read activations, as arguments of a launch."""
    return {"BLOCK_R": BLOCK_ROWS, "BLOCK_C": BLOCK_COLUMNS, "num_warps": NUM_WARPS}


def _row_sums(x: Tensor, places: int) -> tuple[Launch, Tensor]:
    """Return the launch that sums x minus its row's first value, and the square of that, by stripe, and the memory of
    its result [2, rows * stripes, columns]."""
    x = x.contiguous()
    wide, columns = wide_size(x, places)
    num_stripes, stripe = stripes(len(x) // places, wide)
    sums = x.new_empty(2, len(x) // places * num_stripes, columns, dtype=torch.float32)
    grid = sums.shape[1], triton.cdiv(columns, BLOCK_COLUMNS)
    return Launch(_sums_kernel, grid, (x, sums, wide, columns, x.shape[1], num_stripes, stripe), tile()), sums


@triton.jit(do_not_specialize=SIZES)
def _sums_kernel(x, sums, wide, columns, channels, num_stripes, stripe, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """Sum x minus its row's first value, and the square of that, for each stripe and column."""
    column = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = column < columns
    first_row = (tl.program_id(0) // num_stripes) * wide
    begin = (tl.program_id(0) % num_stripes) * stripe
    guess = tl.load(x + first_row.to(tl.int64) * columns + column % channels).to(tl.float32)
    first = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    second = tl.zeros([BLOCK_R, BLOCK_C], tl.float32)
    for start in tl.range(0, stripe, BLOCK_R, num_stages=STAGES):
        row = begin + start + tl.arange(0, BLOCK_R)
        here = (row < wide)[:, None] & inside[None, :]
        place = (first_row + row).to(tl.int64)[:, None] * columns + column[None, :]
        value = tl.load(x + place, mask=here, other=0.0).to(tl.float32)
        value = tl.where(here, value - guess[None, :], 0.0)
        first += value
        second += value * value
    at = sums + tl.program_id(0).to(tl.int64) * columns + column
    tl.store(at, tl.sum(first, axis=0), mask=inside)
    tl.store(at + tl.num_programs(0).to(tl.int64) * columns, tl.sum(second, axis=0), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _over_stripes_kernel(
    sums, x, of_rows, apart, parts, channels, places, of_places,
    KIND: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sum the stripes of a row. `parts`: stripes of a row times places in a wide row; `apart`: offset of the second
    sums."""
    row = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    one = tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    other = tl.zeros([BLOCK_P, BLOCK_C], tl.float64)
    for start in range(0, parts, BLOCK_P):
        part = start + tl.arange(0, BLOCK_P)
        here = (part < parts)[:, None] & inside[None, :]
        at = sums + (row * parts + part)[:, None].to(tl.int64) * channels + channel[None, :]
        one += tl.load(at, mask=here, other=0.0).to(tl.float64)
        other += tl.load(at + apart, mask=here, other=0.0).to(tl.float64)
    first, second = tl.sum(one, axis=0), tl.sum(other, axis=0)
    if KIND != 0:  # from sums of x minus the row's first value, and of the square of that
        mean = first * of_places
        variance = tl.maximum(second * of_places - mean * mean, 0.0)
        guess = tl.load(x + (row * places).to(tl.int64) * channels + channel, mask=inside, other=0.0)
        mean += guess.to(tl.float64)
        first, second = mean, variance + mean * mean
    at = of_rows + 2 * row * channels + channel
    tl.store(at, first, mask=inside)
    tl.store(at + channels, second, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def _over_rows_kernel(
    of_rows, found, starts, channels, of_group, unbiased, eps,
    KIND: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Sum the rows of a piece, and compute its moments from the sums if KIND asks for them."""
    piece = tl.program_id(0)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    inside = channel < channels
    one = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
    other = tl.zeros([BLOCK_R, BLOCK_C], tl.float64)
    end = tl.load(starts + piece + 1)
    for start in range(tl.load(starts + piece), end, BLOCK_R):
        row = start + tl.arange(0, BLOCK_R)
        here = (row < end)[:, None] & inside[None, :]
        at = of_rows + 2 * row[:, None] * channels + channel[None, :]
        one += tl.load(at, mask=here, other=0.0)
        other += tl.load(at + channels, mask=here, other=0.0)
    first, second = tl.sum(one, axis=0), tl.sum(other, axis=0)
    if KIND == 2:
        mean = first * of_group
        variance = tl.maximum(second * of_group - mean * mean, 0.0)
        at = found + piece * channels + channel
        step = tl.num_programs(0) * channels
        tl.store(at, mean.to(tl.float32), mask=inside)
        tl.store(at + step, (1.0 / tl.sqrt(variance + eps)).to(tl.float32), mask=inside)
        tl.store(at + 2 * step, (variance * unbiased).to(tl.float32), mask=inside)
    else:
        at = found + 2 * piece * channels + channel
        tl.store(at, first.to(found.dtype.element_ty), mask=inside)
        tl.store(at + channels, second.to(found.dtype.element_ty), mask=inside)
