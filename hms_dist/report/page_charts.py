"""Charts as inline SVG (templates/charts.html): curves, intervals, stacked bars and reliability diagrams."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hms_dist.report.page_template import macro
from hms_dist.results.held_out import Reliability

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 400, 250
"""Size of a chart, in units of which a text line is 12 high: about the pixels of a phone."""
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 10, 40
"""Margins of the drawing."""
LANE = 11
"""Height of a lane of annotated seconds."""
NUM_COLOURS = 8
MAX_POINTS = 200
"""Maximum number of points of a curve; beyond it, neighbours are averaged."""


@dataclass(frozen=True)
class Curve:
    """One curve of a chart."""

    name: str
    number: int
    """Index of its colour and dashes."""
    x: Floats
    """Positions along the horizontal axis [points]."""
    y: Floats
    """Values [points]."""


@dataclass(frozen=True)
class Level:
    """A line to compare with, such as the constant predictor's value."""

    name: str
    value: float


@dataclass(frozen=True)
class Spot:
    """A value with its interval, and levels to compare it with, in one line of an interval chart."""

    name: str
    value: float
    interval: tuple[float, float] | None
    levels: Sequence[Level]


@dataclass(frozen=True)
class Span:
    """Annotated seconds of the curve with this number."""

    number: int
    begin: float
    end: float
    is_there: bool
    """Filled: the class is present. Else an outline: it is absent."""
    text: str


@dataclass(frozen=True)
class Frame:
    """Axes with ticks from 0, and the position of a value between them."""

    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    width = WIDTH
    height = HEIGHT
    left, right, top, end = LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Position of a value in the picture."""
        width, height = self.right - self.left, self.end - self.top
        return self.left + width * x / self.x_ticks[-1], self.end - height * y / self.y_ticks[-1]

    def at(self, x: float, y: float) -> str:
        """Position of a value in the picture, as part of a path."""
        left, top = self.place(x, y)
        return f"{left:.1f} {top:.1f}"


def style_of(number: int) -> str:
    """CSS classes of the curve or bar with this number; below 0: gray, of something to compare with."""
    if number < 0:
        return f"reference d{-number % 4}"
    return f"c{number % NUM_COLOURS} d{number // NUM_COLOURS % 4}"


def legend(names: Sequence[str]) -> Markup:
    """Names next to sample lines, in the order of their numbers."""
    return _chart("legend", names=names, styles=[style_of(number) for number in range(len(names))])


def line_chart(title: str, x_label: str, y_label: str, curves: Sequence[Curve], levels: Sequence[Level] = ()) -> Markup:
    """Curves over a common axis from 0, and horizontal `levels`; `title` is the text alternative of the picture."""
    x_end = max(float(curve.x.max()) for curve in curves)
    y_end = max([*(float(curve.y.max()) for curve in curves), *(level.value for level in levels)])
    drawn = [
        (style_of(curve.number), curve.name, list(zip(_thinned(curve.x), _thinned(curve.y), strict=True)))
        for curve in curves
    ]
    frame = Frame(_ticks(x_end), _ticks(y_end))
    return _chart("line_chart", title=title, frame=frame, x_label=x_label, y_label=y_label, curves=drawn, levels=levels)


def timeline_chart(title: str, curves: Sequence[Curve], spans: Sequence[Span], end_s: float) -> Markup:
    """Probabilities over the seconds of a recording that ends at `end_s`, and above them a lane of annotated seconds of
    each curve that has some."""
    lanes = {number: lane for lane, number in enumerate(sorted({span.number for span in spans}))}
    ticks = [tick for tick in _ticks(end_s) if tick < 0.92 * end_s]
    frame, drawn = Frame([*ticks, round(end_s, 1)], [0, 0.25, 0.5, 0.75, 1.0]), []
    for span in spans:
        left, right = (frame.place(min(max(at, 0.0), end_s), 0)[0] for at in (span.begin, span.end))
        top = lanes[span.number] * LANE + 2
        drawn.append((style_of(span.number), span.is_there, left, max(right - left, 2.0), top, span.text))
    lines = [(style_of(one.number), one.name, list(zip(one.x, one.y, strict=True))) for one in curves]
    return _chart(
        "timeline_chart", title=title, frame=frame, shift=len(lanes) * LANE, curves=lines, spans=drawn,
        bar=LANE - 4,
    )  # fmt: skip


def reliability_chart(
    title: str,
    series: Sequence[tuple[str, int, Reliability]],
    *,
    constant: float | None = None,
    oracle: Reliability | None = None,
) -> Markup:
    """Mean prediction and mean vote share of each bin as dots, larger for more values; the diagonal is ideal.

    `series`: name, number of the colour and bins of each table. `constant`: the constant prediction. `oracle`:
    the bins of the true distribution, drawn as a line.
    """
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    most = max(float(found.counts.max()) for _, _, found in series)
    drawn = [
        (style_of(number), name, list(zip(found.predicted, found.observed, 3 + 6 * np.sqrt(found.counts / most),
                                          found.counts, strict=True)))
        for name, number, found in series
    ]  # fmt: skip
    line = [] if oracle is None else list(zip(oracle.predicted, oracle.observed, strict=True))
    return _chart(
        "reliability_chart", title=title, frame=Frame(ticks, ticks), series=drawn, constant=constant, oracle=line
    )


def interval_chart(title: str, x_label: str, spots: Sequence[Spot]) -> Markup:
    """One line for each value, from 0: a dot, its interval, and short strokes at its levels."""
    row = 40
    ends = [value for spot in spots for value in (spot.value, *(spot.interval or ()), *_values(spot.levels))]
    ticks = _ticks(max(ends))
    scale, height = (WIDTH - 2 * RIGHT) / ticks[-1], len(spots) * row + BOTTOM
    lines = []
    for number, spot in enumerate(spots):
        low, high = spot.interval or (spot.value, spot.value)
        lines.append(
            {
                "name": spot.name, "style": style_of(number), "top": number * row, "value": spot.value,
                "x": RIGHT + spot.value * scale, "low": RIGHT + max(low, 0) * scale, "high": RIGHT + high * scale,
                "levels": [(RIGHT + level.value * scale, level) for level in spot.levels],
            }
        )  # fmt: skip
    places = [(RIGHT + tick * scale, tick) for tick in ticks]
    return _chart(
        "interval_chart", title=title, width=WIDTH, height=height, end=height - BOTTOM, ticks=places, lines=lines,
        x_label=x_label,
    )  # fmt: skip


def _values(levels: Sequence[Level]) -> list[float]:
    return [level.value for level in levels]


def stacked_bars(title: str, x_label: str, names: Sequence[str], parts: Floats, part_names: Sequence[str]) -> Markup:
    """One bar for each of `names`, of parts [names, parts] that add up, each in its own colour; negative ones extend to
    the left."""
    row, bar = 38, 16
    right, left = np.maximum(parts, 0).sum(axis=1).max(), np.maximum(-parts, 0).sum(axis=1).max()
    step = _ticks(float(right + left))[1]
    ticks = step * np.arange(-math.ceil(left / step - 1e-9), max(math.ceil(right / step - 1e-9), 1) + 1)
    height, scale = len(names) * row + BOTTOM, (WIDTH - 2 * RIGHT) / (ticks[-1] - ticks[0])
    zero, bars = RIGHT - scale * ticks[0], []
    for line, (name, values) in enumerate(zip(names, parts, strict=True)):
        ends = np.where(values > 0, np.cumsum(np.maximum(values, 0)), np.cumsum(np.minimum(values, 0)))
        lefts, widths = zero + scale * np.minimum(ends, ends - values), np.abs(values) * scale
        styles = [style_of(number) for number in range(len(part_names))]
        bars.append(
            {
                "name": name, "total": values.sum(), "left": RIGHT + 4, "top": line * row, "height": bar,
                "parts": list(zip(styles, lefts, widths, part_names, values, strict=True)),
            }
        )  # fmt: skip
    places = [(zero + tick * scale, tick) for tick in ticks]
    return _chart(
        "stacked_bars", title=title, width=WIDTH, height=height, end=height - BOTTOM, ticks=places, bars=bars,
        x_label=x_label,
    )  # fmt: skip


def _chart(name: str, **values: Any) -> Markup:
    return macro("charts.html", name, **values)


def _thinned(values: Floats) -> Floats:
    """At most MAX_POINTS values: means of neighbours."""
    if len(values) <= MAX_POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, MAX_POINTS)])


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to just above `end`, four to six of them."""
    if not end > 0:
        return [0.0, 1.0]
    raw = end / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [step * number for number in range(math.ceil(end / step - 1e-9) + 1)]
