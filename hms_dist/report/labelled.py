"""A canvas with labelled axes, drawn by matplotlib: regions or channels, frequencies and times of every placement."""

import importlib.util
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import Placement
from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.report.edges import Edge, edges_of

LONG_SIDE = 900
"""Approximate size in pixels to which the longer side of a small canvas is enlarged; a larger canvas keeps its size."""
SPACING = 15
"""Smallest distance of two numbers on an edge, picture pixels."""
TITLE_ROWS, NAME_ROWS, TIME_ROWS, GAP = 32, 24, 42, 6
"""Picture pixels above everything, above a panel's first placement, below its last, and between the others."""
LEFT, BAR = 76, 96
"""Picture pixels left of each column of placements, and for the gray scale at the right."""
DPI = 100
PLAIN: dict[str, Any] = {"parse_math": False}
"""Names come from a shard set; matplotlib would read text between dollar signs as a formula."""
UNIT: dict[str, Any] = {
    "xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 7, **PLAIN
}  # fmt: skip
"""Label of a unit at the corner where its numbers begin."""


def save_labelled(path: Path, canvas: Canvas, image: NDArray[Any], *, title: str, flip: bool) -> None:
    """Write `image` [height, width], composed by `canvas`, as a PNG with axes, `title` and a gray scale.

    `flip`: whether it shows left and right exchanged. Raises UserError if matplotlib is not installed.
    """
    try:
        _drop_absent_backend()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError(
            "axes: drawing them needs matplotlib, which is not installed; pip install 'hms-dist[report]', "
            "or leave out --axes"
        ) from error
    enlarged = max(1, round(LONG_SIDE / max(image.shape)))
    layout = FigureLayout([placed.placement for placed in canvas.placed], enlarged)
    figure = Figure(figsize=(layout.width / DPI, layout.height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(GAP / layout.width, 1 - 16 / layout.height, title, va="center", fontsize=11, weight="bold", **PLAIN)
    levels = Normalize(min(0.0, float(image.min())), max(1.0, float(image.max())))
    for number, placed in enumerate(canvas.placed):
        place = placed.placement
        axes = figure.add_axes(layout.box(number))
        pixels = image[place.top : place.bottom, place.left : place.right]
        axes.imshow(pixels, cmap="gray", norm=levels, aspect="auto", extent=(0, place.width, place.height, 0))
        tile = edges_of(placed, flip=flip, spacing=SPACING / enlarged)
        _label(axes.yaxis, tile.left, axes.axhline, pad=24)
        _label(axes.xaxis, tile.bottom if layout.is_last(number) else Edge(), axes.axvline, pad=16)
        if layout.is_first(number):
            axes.set_title(place.panel, fontsize=9, loc="left", pad=4, **PLAIN)
            axes.annotate(tile.left.unit, (0, 1), (-6, 6), **UNIT)
        if layout.is_last(number):
            axes.annotate(tile.bottom.unit, (0, 0), (-6, -9), **UNIT)
    bar = figure.add_axes(layout.bar_box())
    figure.colorbar(ScalarMappable(levels, "gray"), cax=bar)
    bar.tick_params(labelsize=8)
    bar.set_title("pixel", fontsize=8)
    with atomic(path) as file:
        figure.savefig(file, format="png", dpi=DPI)


def _drop_absent_backend() -> None:
    """Remove MPLBACKEND if it names a module that is not installed: matplotlib could not be imported.

    Notebooks pass theirs on to `!hms-dist ...`, whose environment may lack it. Figures here are drawn by Agg.
    """
    module = os.environ.get("MPLBACKEND", "").partition("module://")[2].partition(".")[0]
    if module and importlib.util.find_spec(module) is None:
        del os.environ["MPLBACKEND"]


def _label(axis: Any, edge: Edge, draw_bound: Any, *, pad: float) -> None:
    """Draw numbers as minor ticks next to the picture, names as major ones beyond them, thin lines between parts."""
    axis.remove_overlapping_locs = False
    axis.set_ticks([place for place, _ in edge.names], labels=[name for _, name in edge.names], **PLAIN)
    axis.set_ticks([place for place, _ in edge.numbers], labels=[text for _, text in edge.numbers], minor=True)
    axis.set_tick_params(which="major", length=0, labelsize=8, pad=pad if edge.numbers else 3)
    axis.set_tick_params(which="minor", length=3, labelsize=7)
    for place in edge.bounds:
        draw_bound(place, color="0.5", linewidth=0.5)


class FigureLayout:
    """Positions of placements on a figure: as on the canvas, `enlarged` times, with room for labels.

    Placements that begin at nearly the same row or column share the room before it.
    """

    def __init__(self, placements: Sequence[Placement], enlarged: int) -> None:
        self._placements, self._enlarged = placements, enlarged
        lefts = _starts([item.left for item in placements])
        tops = _starts([item.top for item in placements])
        self._columns = dict.fromkeys(lefts, LEFT)
        self._rows = {tops[0]: TITLE_ROWS}
        for before, top in pairwise(tops):
            ending = [n for n, item in enumerate(placements) if before < item.bottom <= top and self.is_last(n)]
            self._rows[top] = TIME_ROWS if ending else GAP
        for number, item in enumerate(placements):
            if self.is_first(number):
                start = max(top for top in tops if top <= item.top)
                self._rows[start] = max(self._rows[start], NAME_ROWS + (TIME_ROWS if start > tops[0] else TITLE_ROWS))
        self.width = self._x(max(item.right for item in placements), end=True) + BAR
        self.height = self._y(max(item.bottom for item in placements), end=True) + TIME_ROWS
        """Picture pixels."""

    def is_first(self, number: int) -> bool:
        """Whether no placement of the same panel is above, in the same columns."""
        return not any(
            self._alike(number, other) and other.top < self._placements[number].top for other in self._placements
        )

    def is_last(self, number: int) -> bool:
        """Whether no placement of the same panel is below, in the same columns."""
        return not any(
            self._alike(number, other) and other.top > self._placements[number].top for other in self._placements
        )

    def box(self, number: int) -> tuple[float, float, float, float]:
        """Left, bottom, width, height of a placement, as fractions of the figure."""
        item = self._placements[number]
        left, right = self._x(item.left), self._x(item.right, end=True)
        top, bottom = self._y(item.top), self._y(item.bottom, end=True)
        return self._shares(left, bottom, right - left, bottom - top)

    def bar_box(self) -> tuple[float, float, float, float]:
        """The same for the gray scale."""
        bottom = self.height - TIME_ROWS
        return self._shares(self.width - BAR + 24, bottom, 14, min(200, bottom - TITLE_ROWS - NAME_ROWS))

    def _shares(self, left: float, bottom: float, width: float, height: float) -> tuple[float, float, float, float]:
        return left / self.width, 1 - bottom / self.height, width / self.width, height / self.height

    def _alike(self, number: int, other: Placement) -> bool:
        one = self._placements[number]
        return (one.panel, one.left, one.width, one.time_crop) == (
            other.panel,
            other.left,
            other.width,
            other.time_crop,
        )

    def _x(self, column: int, *, end: bool = False) -> float:
        return self._enlarged * column + _room(self._columns, column, end)

    def _y(self, row: int, *, end: bool = False) -> float:
        return self._enlarged * row + _room(self._rows, row, end)


def _starts(values: Sequence[int]) -> list[int]:
    """The distinct values, ascending, without those less than 20 after the previous one."""
    kept: list[int] = []
    for value in sorted(set(values)):
        if not kept or value - kept[-1] >= 20:
            kept.append(value)
    return kept


def _room(starts: dict[int, int], place: int, end: bool) -> float:
    """Room before a position: for an end, without that of placements that start there."""
    return float(np.sum([room for start, room in starts.items() if (start < place if end else start <= place)]))
