"""Where a canvas shows what: the rectangles of its placements, and the direction and pace of time in each."""

from dataclasses import dataclass

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.placed import PlacedPanel


@dataclass(frozen=True, kw_only=True)
class PlacedArea:
    """One placement's rectangle on the canvas, pixels."""

    top: int
    bottom: int
    """First row below it."""
    left: int
    right: int
    """First column right of it."""
    time_down: bool
    """Whether time runs down; else to the right."""
    span_s: float | None
    """Seconds that it shows along its time; None: its panel does not say."""

    @property
    def length(self) -> int:
        """Pixels along time."""
        return self.bottom - self.top if self.time_down else self.right - self.left

    @property
    def breadth(self) -> int:
        """Pixels across time: frequencies, regions or traces."""
        return self.right - self.left if self.time_down else self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A canvas of `height` x `width` pixels and what lies on it."""

    height: int
    width: int
    areas: tuple[PlacedArea, ...]


def layout_of(canvas: Canvas) -> Layout:
    """The layout of a canvas that is bound to its panels."""
    return Layout(
        height=canvas.config.height,
        width=canvas.config.width,
        areas=tuple(_placed_area(placed) for placed in canvas.placed),
    )


def _placed_area(placed: PlacedPanel) -> PlacedArea:
    place = placed.placement
    return PlacedArea(
        top=place.top,
        bottom=place.bottom,
        left=place.left,
        right=place.right,
        time_down=place.arrangement == "time_down",
        span_s=_span_s(placed),
    )


def _span_s(placed: PlacedPanel) -> float | None:
    spec = placed.spec
    num_columns = spec.shape[-1]
    if spec.columns_s is None or num_columns < 2:
        return None
    first, end = placed.placement.time_crop or (0, num_columns)
    return (end - first) * (spec.columns_s[1] - spec.columns_s[0]) / (num_columns - 1)
