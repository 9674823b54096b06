"""Geometry of a canvas: the rectangles of its placements, and direction and scale of time in each."""

from dataclasses import dataclass

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.placed import PlacedPanel


@dataclass(frozen=True, kw_only=True)
class PlacedArea:
    """Rectangle of one placement on the canvas, pixels."""

    top: int
    bottom: int
    """First row below the rectangle."""
    left: int
    right: int
    """First column to the right of the rectangle."""
    time_down: bool
    """Whether the time axis points down; otherwise it points to the right."""
    span_s: float | None
    """Duration shown, seconds; None: the panel does not specify times."""

    @property
    def length(self) -> int:
        """Pixels along the time axis."""
        return self.bottom - self.top if self.time_down else self.right - self.left

    @property
    def breadth(self) -> int:
        """Pixels along the other axis: frequencies, regions or traces."""
        return self.right - self.left if self.time_down else self.bottom - self.top


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Rectangles of the placements on a canvas of `height` x `width` pixels."""

    height: int
    width: int
    areas: tuple[PlacedArea, ...]


def layout_of(canvas: Canvas) -> Layout:
    """Return the layout of a canvas bound to its panels."""
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
