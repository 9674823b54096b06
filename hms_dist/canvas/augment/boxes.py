"""Rectangles of pictures, batched: any number a row, without a loop over rows."""

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.augment.draws import Floats, whole_below


def inside(boxes: Tensor, height: int, width: int) -> Tensor:
    """Which pixels lie in any of a row's boxes: bool [n, 1, height, width].

    `boxes` [n, boxes * 4]: first row, first row below, first column, first column right of it; empty ones allowed.
    """
    top, bottom, left, right = boxes.view(len(boxes), -1, 4, 1).unbind(2)
    rows = torch.arange(height, device=boxes.device)
    columns = torch.arange(width, device=boxes.device)
    in_rows = ((rows >= top) & (rows < bottom)).float()
    in_columns = ((columns >= left) & (columns < right)).float()
    # counts of boxes: small whole numbers, exact in any precision of the product
    return torch.bmm(in_rows.transpose(1, 2), in_columns)[:, None] > 0


def placed_boxes(heights: Floats, widths: Floats, draws: Floats, canvas: tuple[int, int]) -> Floats:
    """Boxes [n, k, 4] of whole sizes [n, k] that lie anywhere within `canvas` (height, width), evenly likely.

    `draws`: two uniforms a box, [n, k, 2].
    """
    top = whole_below(draws[..., 0], canvas[0] - heights + 1)
    left = whole_below(draws[..., 1], canvas[1] - widths + 1)
    return np.stack([top, top + heights, left, left + widths], axis=-1)
