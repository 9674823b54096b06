"""Tick labels at the edges of each placement of a canvas: names of regions and channels, hertz, seconds.

Pure geometry, in canvas pixels from the placement's own corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from hms_dist.canvas.placed import PlacedPanel
from hms_dist.shards.schema import PanelSpec, mirrored

FREQUENCIES_HZ = (10, 5, 20, 15, 2, 1, 40, 30, 0.5, 80, 60, 100)
"""Frequencies that may get a tick; those too close to an earlier one are skipped."""

Ticks = tuple[tuple[float, str], ...]
"""(position, pixels; text) of each tick."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Labels of one edge of a placement."""

    names: Ticks = ()
    """Regions or channels, each at the centre of its part."""
    numbers: Ticks = ()
    """Frequencies of each part, or times."""
    bounds: tuple[float, ...] = ()
    """Boundaries between parts that do not overlap."""
    unit: str = ""
    """Unit of the numbers."""


@dataclass(frozen=True, kw_only=True)
class PlacementEdges:
    """The edges of one placement."""

    bottom: Edge
    left: Edge


def edges_of(placed: PlacedPanel, *, flip: bool, spacing: float) -> PlacementEdges:
    """Compute the edges of a placement, with `flip` named for what is shown then; numbers at least `spacing` pixels
    apart."""
    placement, spec = placed.placement, placed.spec
    if placement.arrangement == "as_is":
        names = mirrored(spec.traces) if flip and placement.flipped_panel else spec.traces
        return PlacementEdges(
            bottom=time_edge(spec, (0, spec.shape[-1]), placement.width, spacing),
            left=parts_edge(names, (), placement.height, spacing),
        )
    names = mirrored(placed.regions) if flip else placed.regions
    columns = placement.time_crop or (0, spec.shape[-1])
    down = placement.arrangement == "time_down"
    length, breadth = (placement.height, placement.width) if down else (placement.width, placement.height)
    time = time_edge(spec, columns, length, spacing)
    parts = parts_edge(names, spec.rows_hz, breadth, spacing)
    return PlacementEdges(bottom=parts, left=time) if down else PlacementEdges(bottom=time, left=parts)


def time_edge(spec: PanelSpec, columns: tuple[int, int], length: float, spacing: float) -> Edge:
    """Seconds along `length` pixels that show `columns` (first, end) of a panel; empty if its times are unknown."""
    if spec.columns_s is None or spec.shape[-1] < 2:
        return Edge()
    first_s, last_s = spec.columns_s
    step_s = (last_s - first_s) / (spec.shape[-1] - 1)
    low_s, high_s = (first_s + step_s * (column - 0.5) for column in columns)
    times_s = round_numbers(low_s, high_s, most=max(2, int(length / (3 * spacing))))
    scale = length / (high_s - low_s)
    return Edge(numbers=tuple(((time_s - low_s) * scale, f"{time_s:g}") for time_s in times_s), unit="s")


def parts_edge(names: Sequence[str], rows_hz: Sequence[float], length: float, spacing: float) -> Edge:
    """Named equal parts of `length` pixels, each with its frequencies ascending; numbers only where they fit."""
    if not names:
        return Edge()
    part = length / len(names)
    numbers: list[tuple[float, str]] = []
    if rows_hz and part >= 3 * spacing:
        centres = (np.arange(len(rows_hz)) + 0.5) * (part / len(rows_hz))
        inside = [hz for hz in FREQUENCIES_HZ if rows_hz[0] <= hz <= rows_hz[-1]]
        places = [(float(np.interp(hz, rows_hz, centres)), f"{hz:g}") for hz in inside]
        kept = _apart([item for item in places if item[0] < part - spacing / 2], spacing)
        numbers = [(number * part + place, text) for number in range(len(names)) for place, text in kept]
    return Edge(
        names=tuple(((number + 0.5) * part, name) for number, name in enumerate(names)),
        numbers=tuple(numbers),
        bounds=tuple(number * part for number in range(1, len(names))) if rows_hz else (),
        unit="Hz" if numbers else "",
    )


def round_numbers(low: float, high: float, *, most: int) -> list[float]:
    """Multiples, from `low` to `high`, of the smallest of 1, 2, 5, 10, ... that gives at most `most` + 1 of them."""
    least = (high - low) / most
    power = 10.0 ** floor(log10(least))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)]


def _apart(places: Sequence[tuple[float, str]], spacing: float) -> list[tuple[float, str]]:
    """Those of `places`, by preference, that are `spacing` away from all earlier ones; ascending."""
    kept: list[tuple[float, str]] = []
    for item in places:
        if all(abs(item[0] - other) >= spacing for other, _ in kept):
            kept.append(item)
    return sorted(kept)
