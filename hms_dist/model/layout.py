"""Conversion between NCHW pictures and rows of channels, one row per pixel.

torch's compiler treats a four-dimensional tensor that it saves for the backward pass as NCHW, and in models with
convolutions moves its second dimension last in memory. For (batch, height, width, channels) that means transposed
copies of the largest tensors. Tensors saved here therefore have two or three dimensions.
"""

from torch import Tensor


def nchw_to_rows(pictures: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch * height * width, channels), any dtype; a view of channels-last
    pictures."""
    channels_last = pictures.permute(0, 2, 3, 1).contiguous()
    return channels_last.view(-1, channels_last.shape[-1])


def rows_to_nchw(rows: Tensor, height: int, width: int) -> Tensor:
    """(batch * height * width, channels) -> (batch, channels, height, width), any dtype, channels last in memory; a
    view."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)
