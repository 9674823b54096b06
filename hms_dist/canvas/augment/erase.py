"""Parts of the picture filled with one value: holes of a fixed size, a hole of any shape, stripes."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change, check_range
from hms_dist.canvas.augment.boxes import inside, placed_boxes
from hms_dist.canvas.augment.draws import Floats, RowDraws, between, whole_below
from hms_dist.canvas.augment.layout import Layout, PlacedArea

NUM_ATTEMPTS = 10
"""Shapes that RandomErasing tries before it leaves a row as it is."""
MOST_BOXES = 1000
"""Holes or stripes of a row."""


@dataclass(frozen=True, kw_only=True)
class BoxFill(Change):
    """What erasing shares: the value that is left, and how boxes are filled."""

    fill: float = 0.0
    """Pixel value of what is erased."""

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """Fill the boxes that `draw` gave."""
        return images.masked_fill(inside(parameters, layout.height, layout.width), self.fill)


@dataclass(frozen=True, kw_only=True)
class CoarseDropout(BoxFill):
    """Exactly so many holes of exactly one size, wholly on the canvas; they may overlap (16th place)."""

    num_holes: int = 5
    """Holes of a row."""
    height: int = 64
    """Rows of a hole, pixels."""
    width: int = 64
    """Columns of a hole, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_holes", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: CoarseDropout expects at least 1, found {getattr(self, name)}")
        if self.num_holes > MOST_BOXES:
            raise ValueError(f"num_holes: expected at most {MOST_BOXES}, found {self.num_holes}")

    def fault(self, height: int, width: int) -> str | None:
        """A hole must fit."""
        if self.height <= height and self.width <= width:
            return None
        return f"holes of {self.height} x {self.width} are too large for {height} x {width}; lower height or width"

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """The holes."""
        places = draws.uniform(2 * self.num_holes).reshape(-1, self.num_holes, 2)
        heights = np.full(places.shape[:2], float(self.height))
        widths = np.full(places.shape[:2], float(self.width))
        return placed_boxes(heights, widths, places, (layout.height, layout.width)).reshape(len(places), -1)


@dataclass(frozen=True, kw_only=True)
class RandomErasing(BoxFill):
    """One hole of any area and shape (Zhong et al. 2017; as torchvision's RandomErasing with a fixed value)."""

    area_share: tuple[float, float] = (0.02, 0.33)
    """Range of the hole's area as a share of the canvas, uniform."""
    aspect_ratio: tuple[float, float] = (0.3, 3.3)
    """Range of the hole's height / width, uniform in its logarithm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("area_share", self.area_share, 0, 1)
        check_range("aspect_ratio", self.aspect_ratio, 0)
        if not self.aspect_ratio[0] > 0:
            raise ValueError(f"aspect_ratio: expected above 0, found {list(self.aspect_ratio)}")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """The first of several shapes that is smaller than the canvas both ways; an empty one if none is."""
        canvas = layout.height, layout.width
        uniform = draws.uniform(2 + 2 * NUM_ATTEMPTS)
        area = between(uniform[:, 2 : 2 + NUM_ATTEMPTS], self.area_share) * canvas[0] * canvas[1]
        low, high = self.aspect_ratio
        ratio = np.exp(between(uniform[:, 2 + NUM_ATTEMPTS :], (math.log(low), math.log(high))))
        heights, widths = np.rint(np.sqrt(area * ratio)), np.rint(np.sqrt(area / ratio))
        fits = (heights < canvas[0]) & (widths < canvas[1])
        first = np.argmax(fits, axis=1)[:, None]
        sizes = (np.where(fits, size, 0.0) for size in (heights, widths))
        height, width = (np.take_along_axis(size, first, axis=1) for size in sizes)
        return placed_boxes(height, width, uniform[:, None, :2], canvas).reshape(len(uniform), 4)


@dataclass(frozen=True, kw_only=True)
class XYMasking(BoxFill):
    """Stripes across each placement by itself, along its time and across it (SpecAugment, Park et al. 2019).

    A stripe of time blanks some seconds of all that the placement shows; one across time blanks some frequencies,
    channels or traces throughout.
    """

    num_time: int = 1
    """Stripes of time in each placement."""
    time_share: tuple[float, float] = (0.0, 0.1)
    """Range of such a stripe's share of the placement's seconds, uniform."""
    num_frequency: int = 1
    """Stripes across time in each placement."""
    frequency_share: tuple[float, float] = (0.0, 0.1)
    """Range of such a stripe's share of the placement's breadth, uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("time_share", "frequency_share"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("num_time", "num_frequency"):
            if not 0 <= getattr(self, name) <= MOST_BOXES:
                raise ValueError(f"{name}: expected 0 to {MOST_BOXES}, found {getattr(self, name)}")
        if not self.num_time + self.num_frequency:
            raise ValueError("num_time: XYMasking expects a stripe of time or across it, found 0 and 0")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """The stripes of every placement, as boxes."""
        parts = [self._stripes(draws.within(number), area) for number, area in enumerate(layout.areas)]
        return np.concatenate(parts, axis=1).reshape(len(draws.rows), -1)

    def _stripes(self, draws: RowDraws, area: PlacedArea) -> Floats:
        """Boxes [n, stripes, 4] of one placement."""
        num_stripes = self.num_time + self.num_frequency
        size, place = draws.uniform(2 * num_stripes).reshape(-1, num_stripes, 2).transpose(2, 0, 1)
        along = np.arange(num_stripes) < self.num_time
        extent = np.where(along, area.length, area.breadth)
        shares = np.where(along, between(size, self.time_share), between(size, self.frequency_share))
        thickness = np.rint(shares * extent)
        first = whole_below(place, extent - thickness + 1)
        in_rows = along == area.time_down
        top = area.top + np.where(in_rows, first, 0)
        bottom = np.where(in_rows, top + thickness, area.bottom)
        left = area.left + np.where(in_rows, 0, first)
        right = np.where(in_rows, area.right, left + thickness)
        return np.stack([top, bottom, left, right], axis=-1)
