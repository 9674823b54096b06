"""Pictures as rows of channels, a row a place.

What torch's compiler keeps of four dimensions for the backward pass it takes for pictures, and where there are
convolutions it puts the second dimension last in memory. Of (batch, height, width, channels) that makes copies across
the grain, of the largest tensors there are. So what is kept here has two or three dimensions.
"""

from torch import Tensor


def nchw_to_rows(pictures: Tensor) -> Tensor:
    """(batch, channels, height, width) -> (batch * height * width, channels); a view of channels-last pictures."""
    channels_last = pictures.permute(0, 2, 3, 1).contiguous()
    return channels_last.view(-1, channels_last.shape[-1])


def rows_to_nchw(rows: Tensor, height: int, width: int) -> Tensor:
    """(batch * height * width, channels) -> (batch, channels, height, width), channels last in memory; a view."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)
