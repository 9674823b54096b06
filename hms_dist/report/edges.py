"""Tick labels at the edges of a picture: names of regions and channels, hertz, seconds.

Pure geometry, in pixels from the picture's upper left corner.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

import numpy as np

from hms_dist.shards.schema import PanelSpec

LONGEST_S = 1e6
"""Times beyond this are not drawn: a manifest may come from elsewhere."""
FREQUENCIES_HZ = (1000, 5000, 10_000, 2000, 500, 20_000, 200, 10, 5, 20, 15, 2, 1, 40, 30, 0.5, 80, 60, 100)
"""Frequencies that may get a tick; those too close to an earlier one are skipped."""
AUDIO_HZ = (5000, 1000, 10_000, 2000, 500, 20_000, 200, 100, 50_000, 100_000)
"""Frequencies that may get a tick on panels that reach beyond 1 kHz."""

Ticks = tuple[tuple[float, str], ...]
"""(position, pixels; text) of each tick."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """Labels of one edge of a picture."""

    names: Ticks = ()
    """Regions or channels, each at the centre of its part."""
    numbers: Ticks = ()
    """Frequencies of each part, or times."""
    bounds: tuple[float, ...] = ()
    """Boundaries between parts that do not overlap."""
    unit: str = ""
    """Unit of the numbers."""


def time_edge(spec: PanelSpec, columns: tuple[int, int], length: float, spacing: float) -> Edge:
    """Seconds along `length` pixels that show `columns` (first, end) of a panel; empty if its times are unknown."""
    if not has_times(spec):
        return Edge()
    place, (low_s, high_s) = time_place(spec, columns, length)
    times_s = round_numbers(low_s, high_s, most=max(2, int(length / (3 * spacing))))
    return Edge(numbers=tuple((place(time_s), f"{time_s:g}") for time_s in times_s), unit="s")


def has_times(spec: PanelSpec) -> bool:
    """Whether the times of a panel's columns are known, and such as a recording may have."""
    if spec.columns_s is None or spec.shape[-1] < 2:
        return False
    first_s, last_s = spec.columns_s
    return max(abs(first_s), abs(last_s)) < LONGEST_S and last_s - first_s > 1 / LONGEST_S


def time_place(
    spec: PanelSpec, columns: tuple[int, int], length: float
) -> tuple[Callable[[float], float], tuple[float, float]]:
    """The pixel of a time, among `length` pixels that show `columns` (first, end) of a panel whose times are known, and
    the times at both ends."""
    assert spec.columns_s is not None
    first_s, last_s = spec.columns_s
    step_s = (last_s - first_s) / (spec.shape[-1] - 1)
    low_s, high_s = (first_s + step_s * (column - 0.5) for column in columns)
    return lambda time_s: (time_s - low_s) * length / (high_s - low_s), (low_s, high_s)


def parts_edge(names: Sequence[str], rows_hz: Sequence[float], length: float, spacing: float) -> Edge:
    """Named equal parts of `length` pixels, each with its lowest frequency at its end; numbers only where they fit."""
    if not names:
        return Edge()
    part = length / len(names)
    numbers: list[tuple[float, str]] = []
    if rows_hz and part >= 3 * spacing:
        centres = (np.arange(len(rows_hz)) + 0.5) * (part / len(rows_hz))
        wanted = AUDIO_HZ if rows_hz[-1] > 1000 else FREQUENCIES_HZ
        inside = [hz for hz in wanted if rows_hz[0] <= hz <= rows_hz[-1]]
        places = [(float(np.interp(hz, rows_hz, centres)), f"{hz:g}") for hz in inside]
        kept = _apart([item for item in places if item[0] < part - spacing / 2], spacing)
        numbers = [((number + 1) * part - place, text) for number in range(len(names)) for place, text in kept[::-1]]
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
