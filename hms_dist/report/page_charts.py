"""Charts as inline SVG: curves, stacked bars and reliability diagrams. Colours are defined in page.css."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.report.page_html import Html, escaped

Floats = NDArray[np.float64]
WIDTH, HEIGHT = 400, 250
"""Size of a chart, in units of which a text line is 12 high: about the pixels of a phone."""
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 10, 40
"""Margins of the drawing."""
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
    y: Floats


def style_of(number: int) -> str:
    """CSS classes of the curve or bar with this number."""
    return f"c{number % NUM_COLOURS} d{number // NUM_COLOURS % 4}"


def legend(names: Sequence[str]) -> Html:
    """Names next to sample lines, in the order of their numbers."""
    line = '<svg viewBox="0 0 30 10" aria-hidden="true"><path class="curve {}" d="M0 5H30"/></svg>'
    items = [f"<li>{line.format(style_of(number))}{escaped(name)}</li>" for number, name in enumerate(names)]
    return Html(f'<ul class="legend">{"".join(items)}</ul>\n')


def line_chart(title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> Html:
    """Curves over a common axis from 0; `title` is the text alternative of the picture."""
    x_end = max(float(curve.x.max()) for curve in curves)
    y_end = max(float(curve.y.max()) for curve in curves)
    frame = _Frame(_ticks(x_end), _ticks(y_end), x_label, y_label)
    return frame.drawn(title, "".join(_curve(frame, curve) for curve in curves))


def reliability_chart(title: str, predicted: Floats, observed: Floats, counts: Floats, number: int) -> Html:
    """Mean prediction and mean vote share of each bin as dots, larger for more values; the diagonal is ideal."""
    ticks = [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    frame = _Frame(ticks, ticks, "predicted probability", "share of votes")
    parts = [f'<path class="ideal" d="M{frame.at(0, 0)}L{frame.at(1, 1)}"/>']
    for x, y, count in zip(predicted, observed, counts, strict=True):
        radius = 3 + 6 * math.sqrt(count / counts.max())
        parts.append(_dot(frame, x, y, radius, f"{count:.0f} values: predicted {x:.3f}, votes {y:.3f}"))
    return frame.drawn(title, f'<g class="{style_of(number)}" fill-opacity="0.85">{"".join(parts)}</g>')


def stacked_bars(title: str, x_label: str, names: Sequence[str], parts: Floats, part_names: Sequence[str]) -> Html:
    """One bar for each of `names`, of parts [names, parts] that add up, each in its own colour; negative ones extend to
    the left."""
    row, bar = 38, 16
    right, left = np.maximum(parts, 0).sum(axis=1).max(), np.maximum(-parts, 0).sum(axis=1).max()
    step = _ticks(float(right + left))[1]
    ticks = step * np.arange(-math.ceil(left / step - 1e-9), max(math.ceil(right / step - 1e-9), 1) + 1)
    height, scale = len(names) * row + BOTTOM, (WIDTH - 2 * RIGHT) / (ticks[-1] - ticks[0])
    zero = RIGHT - scale * ticks[0]
    marks = [_tick_x(zero + tick * scale, 4, height - BOTTOM, tick) for tick in ticks]
    for line, (name, values) in enumerate(zip(names, parts, strict=True)):
        top = line * row
        marks.append(f'<text x="{RIGHT + 4}" y="{top + 13}">{escaped(name)}: {values.sum():.4f}</text>')
        ends = np.where(values > 0, np.cumsum(np.maximum(values, 0)), np.cumsum(np.minimum(values, 0)))
        marks += [
            f'<rect class="{style_of(number)}" fill="currentColor" x="{zero + scale * min(end, end - value):.1f}" '
            f'y="{top + 18}" width="{abs(value) * scale:.1f}" height="{bar}">'
            f"<title>{escaped(part)} {value:.4f}</title></rect>"
            for number, (end, value, part) in enumerate(zip(ends, values, part_names, strict=True))
        ]
    marks.append(f'<text x="{WIDTH / 2}" y="{height - 6}" text-anchor="middle">{escaped(x_label)}</text>')
    return _svg(title, height, "".join(marks))


class _Frame:
    """Axes with ticks, and the position of a value between them."""

    def __init__(self, x_ticks: list[float], y_ticks: list[float], x_label: str, y_label: str) -> None:
        self._x_ticks, self._y_ticks, self._labels = x_ticks, y_ticks, (x_label, y_label)

    def place(self, x: float, y: float) -> tuple[float, float]:
        width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        return LEFT + width * x / self._x_ticks[-1], HEIGHT - BOTTOM - height * y / self._y_ticks[-1]

    def at(self, x: float, y: float) -> str:
        left, top = self.place(x, y)
        return f"{left:.1f} {top:.1f}"

    def drawn(self, title: str, inner: str) -> Html:
        end, x_label, y_label = HEIGHT - BOTTOM, *map(escaped, self._labels)
        parts = [_tick_x(self.place(tick, 0)[0], TOP, end, tick) for tick in self._x_ticks]
        for tick in self._y_ticks:
            y = self.place(0, tick)[1]
            parts.append(f'<path class="grid-line" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        parts.append(f'<path class="axis" fill="none" d="M{LEFT} {TOP}V{end}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{x_label}</text>')
        middle = (TOP + end) / 2
        parts.append(f'<text transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">{y_label}</text>')
        return _svg(title, HEIGHT, "".join(parts) + inner)


def _curve(frame: _Frame, curve: Curve) -> str:
    x, y = _thinned(curve.x), _thinned(curve.y)
    points = [frame.at(*point) for point in zip(x, y, strict=True)]
    dots = (
        "".join(_dot(frame, *point, 2.5, f"{point[1]:.4g}") for point in zip(x, y, strict=True)) if len(x) < 30 else ""
    )
    path = f'<path class="curve" d="M{"L".join(points)}"/>'
    return f'<g class="{style_of(curve.number)}"><title>{escaped(curve.name)}</title>{path}{dots}</g>'


def _dot(frame: _Frame, x: float, y: float, radius: float, label: str) -> str:
    left, top = frame.place(x, y)
    return f'<circle class="dot" cx="{left:.1f}" cy="{top:.1f}" r="{radius:.1f}"><title>{label}</title></circle>'


def _tick_x(x: float, top: float, end: float, tick: float) -> str:
    label = f'<text x="{x:.1f}" y="{end + 15}" text-anchor="middle">{tick:g}</text>'
    return f'<path class="grid-line" d="M{x:.1f} {top}V{end}"/>{label}'


def _svg(title: str, height: float, inner: str) -> Html:
    label = escaped(title)
    return Html(f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">{inner}</svg>\n')


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
