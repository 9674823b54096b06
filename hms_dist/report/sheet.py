"""Pictures for a reader on one sheet, drawn by matplotlib: time to the right, low frequencies at the bottom, colour
scales with units, names of regions and channels, microvolt bars."""

import importlib.util
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.report.edges import Edge

WIDTH = 900
"""Width of each picture, pixels of the sheet."""
LEFT, RIGHT, TITLE_ROWS, NAME_ROWS, TIME_ROWS, GAP = 84, 110, 32, 26, 40, 8
"""Pixels beside, above and below the pictures: of the sheet, of a named picture, of one with times, of any other."""
DPI = 100
PLAIN: dict[str, Any] = {"parse_math": False}
"""Names come from a shard set; matplotlib would read text between dollar signs as a formula."""


@dataclass(frozen=True)
class Bar:
    """A vertical bar beside a trace."""

    middle: float
    """Row of its middle."""
    length: float
    """Length of the bar, rows."""
    text: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One picture of a sheet. Positions are rows and columns of `pixels`."""

    title: str
    """Heading; empty: the picture continues the one above."""
    pixels: NDArray[np.float64]
    """Values [rows, columns], the top row first; NaN: gap."""
    colours: str
    """Colour map of matplotlib."""
    range: tuple[float, float]
    """Values of the first and the last colour."""
    unit: str
    """Unit of the colour scale; empty: no scale is drawn."""
    left: Edge
    bottom: Edge
    height: int
    """Height on the sheet, pixels."""
    grid: tuple[float, ...] = ()
    """Columns of thin lines."""
    marked: tuple[float, float] | None = None
    """First and last column of the seconds that the label describes. None: nothing is marked."""
    bars: tuple[Bar, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    """Rectangles: first and last column, first and last row."""
    dashed: tuple[bool, ...] = ()
    """Which of the boxes are dashed. Empty: none."""
    box_names: tuple[str, ...] = ()
    """Name above each of the boxes. Empty: none."""


def check_matplotlib(what: str, instead: str) -> None:
    """Raise UserError if matplotlib, which `what` needs, is not installed; `instead` is the other way out."""
    try:
        found = importlib.util.find_spec("matplotlib") is not None
    except ValueError:
        found = False
    if not found:
        raise UserError(f"{what} need matplotlib, which is not installed; pip install 'hms-dist[report]', or {instead}")


def sheet(parts: Sequence[Part], *, title: str, file_format: str = "png", **options: Any) -> bytes:
    """Draw the parts below each other, as a file of this format; `options` are those of its writer in Pillow."""
    _drop_absent_backend()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tops, bottom = [], float(TITLE_ROWS)
    for part in parts:
        tops.append(bottom + (NAME_ROWS if part.title else 0))
        bottom = tops[-1] + part.height + (TIME_ROWS if part.bottom.numbers or part.bottom.names else GAP)
    width, height = LEFT + WIDTH + RIGHT, int(bottom)
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(8 / width, 1 - 16 / height, _printable(title, 200), va="center", fontsize=11, weight="bold", **PLAIN)
    for part, top in zip(parts, tops, strict=True):
        box = (LEFT / width, 1 - (top + part.height) / height, WIDTH / width, part.height / height)
        axes = figure.add_axes(box)
        _draw(axes, part)
        if part.unit:
            length = min(part.height, 220)
            place = ((LEFT + WIDTH + 14) / width, 1 - (top + length) / height, 12 / width, length / height)
            _scale(figure, place, part)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name may have letters that the font lacks
        figure.savefig(content, format=file_format, dpi=DPI, pil_kwargs=options)
    return content.getvalue()


def _printable(text: str, most: int = 60) -> str:
    """Text from a shard set, which may come from elsewhere: at most `most` characters, all of them printable."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:most])


def _draw(axes: Any, part: Part) -> None:
    """Draw one picture with its axes."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    colours = colormaps[part.colours].with_extremes(bad="0.75")
    rows, columns = part.pixels.shape
    axes.imshow(
        part.pixels, cmap=colours, norm=Normalize(*part.range), aspect="auto", extent=(0, columns, rows, 0),
        interpolation="antialiased",
    )  # fmt: skip
    axes.vlines(part.grid, 0, rows, color="0.5", linewidth=0.4, alpha=0.6)
    for column in part.marked or ():
        axes.axvline(column, color="white", linewidth=1.2)
        axes.axvline(column, color="black", linewidth=1.2, linestyle=(0, (4, 3)))
    for number, box in enumerate(part.boxes):
        _box(axes, box, part.dashed[number] if part.dashed else False, part.box_names[number : number + 1])
    _label(axes.yaxis, part.left, axes.axhline, pad=24)
    _label(axes.xaxis, part.bottom, axes.axvline, pad=16)
    if part.title:
        axes.set_title(_printable(part.title), fontsize=9, loc="left", pad=4, **PLAIN)
    unit: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 7, **PLAIN}
    axes.annotate(_printable(part.left.unit), (0, 1), (-6, 5), ha="right", va="center", **unit)
    axes.annotate(_printable(part.bottom.unit), (1, 0), (8, -9), ha="left", va="center", **unit)
    across = axes.get_yaxis_transform()
    for bar in part.bars:
        ends = (bar.middle - bar.length / 2, bar.middle + bar.length / 2)
        axes.plot((1.008, 1.008), ends, color="black", linewidth=1.4, transform=across, clip_on=False)
        axes.text(1.014, bar.middle, bar.text, transform=across, va="center", fontsize=6.5, **PLAIN)
    axes.set_xlim(0, columns)
    axes.set_ylim(rows, 0)


def _box(axes: Any, box: tuple[float, float, float, float], is_dashed: bool, names: tuple[str, ...]) -> None:
    """Draw a rectangle that is seen on every colour, and its name above it, or inside at the picture's top."""
    left, right, top, bottom = box
    corners = (left, right, right, left, left), (top, top, bottom, bottom, top)
    axes.plot(*corners, color="black", linewidth=2.2)
    axes.plot(*corners, color="cyan", linewidth=1.0, linestyle=(0, (4, 3)) if is_dashed else "-")
    for name in names:
        ground: dict[str, Any] = {"facecolor": "black", "edgecolor": "none", "pad": 1.0, "alpha": 0.7}
        is_low = axes.transData.transform((0, top))[1] < axes.transData.transform((0, 0))[1] - 12
        axes.annotate(
            _printable(name, 24), (left, top), (0, 3 if is_low else -3), textcoords="offset points", fontsize=7,
            color="cyan", va="bottom" if is_low else "top", bbox=ground, annotation_clip=False, **PLAIN,
        )  # fmt: skip


def _scale(figure: Any, place: tuple[float, float, float, float], part: Part) -> None:
    """Draw the colour scale beside a picture."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    bar = figure.add_axes(place)
    figure.colorbar(ScalarMappable(Normalize(*part.range), part.colours), cax=bar)
    bar.tick_params(labelsize=7)
    bar.set_title(_printable(part.unit), fontsize=7, loc="left", **PLAIN)


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
    axis.set_ticks([place for place, _ in edge.names], labels=[_printable(name) for _, name in edge.names], **PLAIN)
    axis.set_ticks([place for place, _ in edge.numbers], labels=[text for _, text in edge.numbers], minor=True)
    axis.set_tick_params(which="major", length=0, labelsize=8, pad=pad if edge.numbers else 3)
    axis.set_tick_params(which="minor", length=3, labelsize=7)
    for place in edge.bounds:
        draw_bound(place, color="white", linewidth=1.0)
