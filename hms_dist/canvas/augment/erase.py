"""Augmentations that fill parts of the image with a value: holes of fixed size, a hole of random shape, stripes."""

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change, check_range
from hms_dist.canvas.augment.boxes import inside, placed_boxes
from hms_dist.canvas.augment.draws import Floats, RowDraws, between, whole_below
from hms_dist.canvas.augment.layout import Layout, PlacedArea

NUM_ATTEMPTS = 10
"""Number of shapes that RandomErasing tries before it leaves a row unchanged."""
MAX_BOXES = 1000
"""Largest number of holes or stripes in a row."""


@dataclass(frozen=True, kw_only=True)
class BoxFill(Change):
    """Base of augmentations that fill boxes with a value."""

    fill: float = 0.0
    """Pixel value inside the boxes."""

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """Fill the boxes that `draw` returned."""
        return images.masked_fill(inside(parameters, layout.height, layout.width), self.fill)


@dataclass(frozen=True, kw_only=True)
class CoarseDropout(BoxFill):
    """A fixed number of holes of a fixed size, inside the canvas; they may overlap (16th place)."""

    num_holes: int = 5
    """Number of holes in a row."""
    height: int = 64
    """Height of a hole, pixels."""
    width: int = 64
    """Width of a hole, pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_holes", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: CoarseDropout expects at least 1, found {getattr(self, name)}")
        if self.num_holes > MAX_BOXES:
            raise ValueError(f"num_holes: expected at most {MAX_BOXES}, found {self.num_holes}")

    def fault(self, height: int, width: int) -> str | None:
        """Reject holes larger than the canvas."""
        if self.height <= height and self.width <= width:
            return None
        return f"holes of {self.height} x {self.width} are too large for {height} x {width}; lower height or width"

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw the holes, as boxes."""
        places = draws.uniform(2 * self.num_holes).reshape(-1, self.num_holes, 2)
        heights = np.full(places.shape[:2], float(self.height))
        widths = np.full(places.shape[:2], float(self.width))
        return placed_boxes(heights, widths, places, (layout.height, layout.width)).reshape(len(places), -1)


@dataclass(frozen=True, kw_only=True)
class RandomErasing(BoxFill):
    """One hole of random area and shape (Zhong et al. 2017; as torchvision's RandomErasing with a fixed value)."""

    area_share: tuple[float, float] = (0.02, 0.33)
    """Range of the hole's area as a share of the canvas, uniform."""
    aspect_ratio: tuple[float, float] = (0.3, 3.3)
    """Range of the hole's aspect ratio, height / width, log-uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("area_share", self.area_share, 0, 1)
        check_range("aspect_ratio", self.aspect_ratio, 0)
        if not self.aspect_ratio[0] > 0:
            raise ValueError(f"aspect_ratio: expected above 0, found {list(self.aspect_ratio)}")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw several shapes and take the first one smaller than the canvas in both directions; else an empty one."""
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
    """Stripes along both axes of each placement (SpecAugment, Park et al. 2019).

    A time stripe covers some seconds of all rows of a placement; a frequency stripe covers some of its frequencies,
    channels or traces over all time.
    """

    num_time: int = 1
    """Number of time stripes in each placement."""
    time_share: tuple[float, float] = (0.0, 0.1)
    """Range of a time stripe's share of the placement's time, uniform."""
    num_frequency: int = 1
    """Number of frequency stripes in each placement."""
    frequency_share: tuple[float, float] = (0.0, 0.1)
    """Range of a frequency stripe's share of the placement's frequencies, channels or traces, uniform."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("time_share", "frequency_share"):
            check_range(name, getattr(self, name), 0, 1)
        for name in ("num_time", "num_frequency"):
            if not 0 <= getattr(self, name) <= MAX_BOXES:
                raise ValueError(f"{name}: expected 0 to {MAX_BOXES}, found {getattr(self, name)}")
        if not self.num_time + self.num_frequency:
            raise ValueError("num_time: XYMasking expects at least one stripe, found num_time 0 and num_frequency 0")

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw the stripes of every placement, as boxes."""
        parts = [self._stripes(draws.within(number), area) for number, area in enumerate(layout.areas)]
        return np.concatenate(parts, axis=1).reshape(len(draws.rows), -1)

    def _stripes(self, draws: RowDraws, area: PlacedArea) -> Floats:
        """Draw boxes [n, stripes, 4] of one placement."""
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
