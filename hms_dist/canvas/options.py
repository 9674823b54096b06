"""Configuration of a canvas: which panel is placed where, and how."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from hms_dist.canvas.normalise import Normaliser
from hms_dist.canvas.signals import DrawnPanel
from hms_dist.core import limits


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Rectangle of one panel on the canvas. Steps are applied in the order of the fields."""

    panel: str
    """Name of the panel in the shard set, or in `drawn`."""
    flipped_panel: str | None = None
    """Panel read instead for flipped rows; None: flip by exchanging left and right regions."""
    regions: tuple[str, ...] = ()
    """Regions or channels to show, in order; empty: all, in the panel's order."""
    normalise: Normaliser | None = None
    """Conversion from the panel's unit to pixel values, over all shown regions together; None: values are unchanged."""
    frequency_order: Literal["rising", "natural_sort"] = "rising"
    """natural_sort: as the 16th place's column names sort, 12.11 after 12.7 (for parity only)."""
    time_crop: tuple[int, int] | None = None
    """First time column kept, and the first column after the kept ones; None: all."""
    arrangement: Literal["as_is", "time_down", "stacked"] = "as_is"
    """as_is: a picture without regions. time_down: one row per time, regions side by side, low frequencies left.
    stacked: time along x, regions below each other, low frequencies (or a channel's first row) on top."""
    resize: Literal["bilinear", "area", "exact"] = "bilinear"
    """Resizing to `height` x `width`: bilinear without smoothing (OpenCV's INTER_LINEAR), or the mean of the area
    that each pixel covers (for strong reduction); exact: a panel of another size, from another render recipe, is an
    error."""
    scale: float = 1.0
    """Factor of the pixel values, applied last."""
    top: int
    """First row on the canvas, pixels."""
    left: int
    """First column on the canvas, pixels."""
    height: int
    """Rows on the canvas, pixels."""
    width: int
    """Columns on the canvas, pixels."""

    def __post_init__(self) -> None:
        for name in ("top", "left"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: '{self.panel}' must start at 0 or later, found {getattr(self, name)}")
        for name in ("height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: '{self.panel}' must be at least 1, found {getattr(self, name)}")
        if self.time_crop is not None and not 0 <= self.time_crop[0] < self.time_crop[1]:
            raise ValueError(f"time_crop: must be [first, end] with 0 <= first < end, found {list(self.time_crop)}")
        if self.arrangement == "as_is" and (self.regions or self.time_crop or self.frequency_order != "rising"):
            raise ValueError(
                f"arrangement: '{self.panel}' as_is has no regions, frequency_order or time_crop; "
                "choose time_down or stacked"
            )

    @property
    def bottom(self) -> int:
        """First row below the rectangle."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column right of the rectangle."""
        return self.left + self.width

    def overlaps(self, other: "Placement") -> bool:
        """Whether the two rectangles share a pixel."""
        rows = self.top < other.bottom and other.top < self.bottom
        return rows and self.left < other.right and other.left < self.right


@dataclass(frozen=True, kw_only=True)
class CanvasConfig:
    """A one-channel picture of `height` x `width` pixels with several panels; uncovered pixels are 0."""

    RECIPE_FOLDER = "canvas"

    height: int
    """Rows, pixels."""
    width: int
    """Columns, pixels."""
    placements: tuple[Placement, ...]
    """Rectangles of the panels, which must not overlap."""
    drawn: Mapping[str, DrawnPanel] = field(default_factory=dict, hash=False)
    """Panels, by name, that are drawn on the device from a stored signal; all others are stored. Each by class_path and
    init_args."""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ValueError(f"height: a canvas needs at least 1 x 1 pixels, found {self.height} x {self.width}")
        if self.height * self.width > limits.CANVAS_PIXELS:
            raise ValueError(
                f"height: a canvas has at most {limits.CANVAS_PIXELS} pixels, found {self.height} x {self.width}"
            )
        if not self.placements:
            raise ValueError("placements: a canvas needs at least one")
        shown = {item.panel for item in self.placements}
        for name, drawn in self.drawn.items():
            if name not in shown or drawn.drawn_from == name:
                fault = "is in no placement" if name not in shown else "is drawn from itself"
                raise ValueError(f"drawn: '{name}' {fault}; placements show {', '.join(sorted(shown))}")
        for number, item in enumerate(self.placements):
            if item.bottom > self.height:
                raise ValueError(_outside(number, item, "top + height", item.bottom, self.height))
            if item.right > self.width:
                raise ValueError(_outside(number, item, "left + width", item.right, self.width))
        for (one, first), (two, second) in combinations(enumerate(self.placements), 2):
            if first.overlaps(second):
                raise ValueError(
                    f"placements: {one} ('{first.panel}') and {two} ('{second.panel}') overlap; "
                    "change top, left, height or width of one"
                )


def _outside(number: int, item: Placement, option: str, found: int, size: int) -> str:
    return f"placements: {option} of {number} ('{item.panel}') is {found}, beyond the canvas of {size} pixels"
