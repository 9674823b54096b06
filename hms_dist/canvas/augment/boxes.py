"""Rectangles in images, batched: several for each row, without a loop over rows."""

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.augment.draws import Floats, whole_below


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Return which pixels are inside any box of their row: bool [n, 1, height, width].

    `boxes` [n, boxes * 4]: top, bottom, left, right; bottom and right are exclusive. Boxes may be empty.
    """
    top, bottom, left, right = boxes.view(len(boxes), -1, 4, 1).unbind(2)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    in_rows = ((rows >= top) & (rows < bottom)).float()
    in_columns = ((columns >= left) & (columns < right)).float()
    # numbers of boxes: small integers, exact in any precision
    return torch.bmm(in_rows.transpose(1, 2), in_columns)[:, None] > 0


def placed_boxes(heights: Floats, widths: Floats, draws: Floats, canvas: tuple[int, int]) -> Floats:
    """Place boxes of integer sizes [n, k] uniformly within `canvas` (height, width); returns boxes [n, k, 4].

    `draws`: two uniform draws for each box [n, k, 2].
    """
    top = whole_below(draws[..., 0], canvas[0] - heights + 1)
    left = whole_below(draws[..., 1], canvas[1] - widths + 1)
    return np.stack([top, top + heights, left, left + widths], axis=-1)
