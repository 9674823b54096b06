"""Random crops and pastes of images with an annotated window (the bird-call detector).

Pure functions of images and uniform draws; the caller keys the draws by row.
"""

from math import ceil, floor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Draws = NDArray[np.float64]
"""Uniform draws in [0, 1), one for each row."""


def offset_range(window: tuple[float, float], width: int, crop_width: int) -> tuple[int, int]:
    """Return the first and last possible start column of a crop that contains the whole `window` (left, right), pixels.

    Raises ValueError if the crop is too narrow.
    """
    first, last = max(0, ceil(window[1]) - crop_width), min(floor(window[0]), width - crop_width)
    if first > last:
        raise ValueError(f"a crop of {crop_width} columns cannot hold columns {window[0]:.1f} to {window[1]:.1f}")
    return first, last


def crop_offsets(draws: Draws, window: tuple[float, float], width: int, crop_width: int) -> Tensor:
    """Compute the start column of each row's crop: int64 [m], uniform over `offset_range`."""
    first, last = offset_range(window, width, crop_width)
    return torch.from_numpy(first + np.floor(draws * (last - first + 1)).astype(np.int64))


def crop_offsets_of(draws: Draws, lefts: Draws, length: float, width: int, crop_width: int) -> Tensor:
    """Compute the start column of each row's crop as `crop_offsets`, for windows of `length` pixels from `lefts`
    [m]."""
    first = np.maximum(0, np.ceil(lefts + length).astype(np.int64) - crop_width)
    last = np.maximum(first, np.minimum(np.floor(lefts).astype(np.int64), width - crop_width))
    return torch.from_numpy(first + np.floor(draws * (last - first + 1)).astype(np.int64))


def cropped(images: Tensor, offsets: Tensor, crop_width: int) -> Tensor:
    """Crop each of `images` [m, channels, height, width], any dtype, to `crop_width` columns from `offsets`, int64
    [m]."""
    columns = offsets[:, None] + torch.arange(crop_width, device=images.device)
    return images.gather(3, columns[:, None, None].expand(-1, *images.shape[1:3], -1))


def pasted(images: Tensor, donors: Tensor, window: tuple[float, float]) -> Tensor:
    """Replace the columns of `window` in `images` [n, channels, height, width] by those of `donors`; same shape, any
    dtype."""
    columns = torch.arange(images.shape[-1], device=images.device)
    inside = (columns >= floor(window[0])) & (columns < ceil(window[1]))
    return torch.where(inside, donors, images)


def pasted_at(images: Tensor, donors: Tensor, lefts: Tensor, donor_lefts: Tensor, length: float) -> Tensor:
    """Replace the columns of each row's window, `length` pixels from `lefts` [n], by those of the donor's window.

    `images`, `donors` [n, channels, height, width], any dtype; `lefts`, `donor_lefts`: float64. Windows begin at whole
    columns here, by rounding.
    """
    width, size = images.shape[-1], min(ceil(length), images.shape[-1])
    begins = lefts.round().long().clamp(0, width - size)
    shifts = donor_lefts.round().long().clamp(0, width - size) - begins
    columns = torch.arange(width, device=images.device)
    inside = (columns >= begins[:, None]) & (columns < begins[:, None] + size)
    source = torch.where(inside, columns + shifts[:, None], columns)[:, None, None, :]
    return torch.where(inside[:, None, None, :], donors.gather(3, source.expand_as(donors)), images)
