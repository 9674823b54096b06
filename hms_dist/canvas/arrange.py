"""Steps from a stored panel to its place on the canvas, as pure functions of batched tensors.

Shapes: m rows of a batch; a panel with regions (or channels) is [m, regions, frequency, time], a picture [m, height,
width].
"""

import torch
from torch import Tensor
from torch.nn import functional

from hms_dist.shards.schema import PanelSpec


def decode(stored: Tensor, spec: PanelSpec) -> Tensor:
    """Convert a stored array [m, *spec.shape], bits unpacked, to values in `spec.unit`, float32."""
    if spec.value_range is None:
        return stored.float()
    low, high = spec.value_range
    return (stored * ((high - low) / 255)).add_(low)  # rounded twice on every device, so that the bits are equal


def unpack_bits(packed: Tensor) -> Tensor:
    """Unpack bits, eight per uint8 along the last axis, highest first: `packed` uint8 [..., n] to uint8 [..., 8 n]."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    return ((packed[..., None] >> shifts) & 1).flatten(-2)


def take_regions(stored: Tensor, plain: Tensor, flipped: Tensor, flip: Tensor | None) -> Tensor:
    """Select regions of `stored` [m, regions, ...], any dtype, by index.

    `plain`, `flipped`: int64 [selected regions]; `flipped` applies to rows where `flip`, bool [m], is true. None: to no
    row.
    """
    if flip is None:
        return stored[:, plain]
    rows = torch.arange(len(stored), device=stored.device)[:, None]
    return stored[rows, torch.where(flip[:, None], flipped, plain)]


def reversed_rows(values: Tensor, reverse: Tensor) -> Tensor:
    """Reverse the time axis of `values` [m, ..., time], any dtype, in rows where `reverse`, bool [m], is true."""
    return torch.where(reverse.view(-1, *[1] * (values.dim() - 1)), values.flip(-1), values)


def natural_order(rows_hz: tuple[float, ...]) -> list[int]:
    """Indices that sort frequencies as names with two decimals sort naturally: 12.3, 12.5, 12.7, 12.11, 12.89."""

    def parts(index: int) -> tuple[int, ...]:
        return tuple(int(number) for number in f"{rows_hz[index]:g}".split("."))

    return sorted(range(len(rows_hz)), key=parts)


def time_down(values: Tensor) -> Tensor:
    """Arrange [m, regions, frequency, time] as pictures [m, time, regions * frequency], regions side by side; any
    dtype."""
    return values.permute(0, 3, 1, 2).flatten(2)


def stacked(values: Tensor) -> Tensor:
    """Arrange [m, regions, frequency, time] as pictures [m, regions * frequency, time], regions below each other; any
    dtype."""
    return values.flatten(1, 2)


def resized(pictures: Tensor, height: int, width: int, how: str) -> Tensor:
    """Resize pictures [m, h, w] to [m, height, width], pixels; `how` is "bilinear" (no smoothing) or "area" (mean).

    float32, except pictures that already have that size, which are returned unchanged.
    """
    if pictures.shape[1:] == (height, width):
        return pictures
    align = False if how == "bilinear" else None
    return functional.interpolate(pictures[:, None].float(), (height, width), mode=how, align_corners=align)[:, 0]
