"""Parts of a sheet from stored panels and composed canvases, all the same way up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.placed import PlacedPanel
from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.datasets import Dataset
from hms_dist.panels.traces import BAND_ROWS
from hms_dist.report.edges import Edge, has_times, parts_edge, time_edge, time_place
from hms_dist.report.picture import panel_values, shown_range
from hms_dist.report.sheet import WIDTH, Bar, Part
from hms_dist.shards.index import Index
from hms_dist.shards.schema import PanelSpec, mirrored

SPACING = 15
"""Smallest distance of two numbers on an edge, pixels of the sheet."""
TRACE_ROWS, REGION_ROWS, MOST_ROWS = 28, 110, 900
"""Height of a trace and of a region on the sheet, and of a picture at most, pixels."""
INK, POWER, VALUES = "gray_r", "magma", "viridis"
"""Colour maps of traces, of spectrograms, and of anything else."""
BAR_UV = (20, 50, 100, 200, 500, 1000, 2000)
"""Lengths of bars beside traces, microvolts: of each trace the one nearest to its scale."""
LARGEST = 1e12
"""A range of values beyond this, or an empty one, is not drawn: a manifest may come from elsewhere."""
MOST_LINES = 100
"""Most lines of a grid."""
WINDOW_S = WINDOW_SAMPLES / RATE_HZ
Box: TypeAlias = tuple[float, float, float, float]
"""Start and end of an annotation, seconds of the row, and its lowest and highest frequency."""


def panel_part(
    name: str,
    spec: PanelSpec,
    stored: NDArray[Any],
    dataset: Dataset,
    scales_uv: tuple[float, ...] = (),
    box: Box | None = None,
) -> Part:
    """One sample's panel, from its stored array [*spec.stored_shape], in the stored dtype.

    `scales_uv`: scale of each trace, for bars. `box`: the annotation of a row of audio.
    """
    values = panel_values(spec, stored)
    rows, columns = values.shape
    colours, unit = (INK, "") if spec.dtype in ("bit", "int16") else (POWER if spec.rows_hz else VALUES, spec.unit)
    if spec.traces and spec.dtype == "bit":
        values = _without_strokes(values)
    low, high = shown_range(spec, values)
    if not -LARGEST < low < high < LARGEST:
        values, low, high, unit = np.zeros_like(values), 0.0, 1.0, ""
    names, shown = spec.regions or spec.traces, (0, spec.shape[-1] if spec.dtype == "int16" else columns)
    if spec.dtype == "int16" and spec.value_range is not None:
        peak = np.abs(stored.astype(np.int32)).max(initial=0) / 32768 * spec.value_range[1]
        name = f"{name}, up to {peak:.2g} of {spec.unit}"
    times = _times(spec, shown, columns, dataset)
    if box is not None and "marked" in times:
        place, _ = time_place(spec, shown, columns)
        times["marked"] = (place(box[0]), place(box[1])) if spec.dtype == "int16" else None
    return Part(
        title=name,
        pixels=values,
        colours=colours,
        range=(low, high),
        unit=unit,
        left=_left(names, spec.rows_hz, rows, height := _height(spec, rows, columns)),
        bottom=time_edge(spec, shown, columns, SPACING * columns / WIDTH),
        height=height,
        **times,
        bars=_bars(spec, scales_uv, rows),
        boxes=_boxes(spec, box, rows, columns),
    )


def box_of(index: Index, row: int) -> Box | None:
    """The annotated box of a row of audio; None: it has none."""
    if index.dataset.signal != "audio":
        return None
    values = index.frame.iloc[row]
    offset = float(values["eeg_label_offset_seconds"])
    begin, end, low, high = (float(values[name]) for name in ("t_min", "t_max", "f_min", "f_max"))
    return None if np.isnan([begin, end, low, high]).any() else (begin - offset, end - offset, low, high)


def _boxes(spec: PanelSpec, box: Box | None, rows: int, columns: int) -> tuple[Box, ...]:
    """The box on a picture of one region; none on panels without times or frequencies."""
    if box is None or not has_times(spec) or len(spec.rows_hz) < 2 or len(spec.regions) != 1:
        return ()
    return (box_places(spec, box, rows, columns),)


def box_places(spec: PanelSpec, box: Box, rows: int, columns: int) -> Box:
    """First and last column, first and last row of a box on a picture of one region whose times and frequencies are
    known."""
    place, _ = time_place(spec, (0, spec.shape[-1]), columns)
    centres = (np.arange(len(spec.rows_hz)) + 0.5) * (rows / len(spec.rows_hz))
    bottom, top = (rows - float(np.interp(hertz, spec.rows_hz, centres)) for hertz in box[2:])
    return place(box[0]), place(box[1]), top, bottom


def canvas_parts(
    canvas: Canvas,
    image: NDArray[Any],
    dataset: Dataset,
    scales_uv: Mapping[str, tuple[float, ...]],
    *,
    flip: bool,
    plain: bool = True,
) -> list[Part]:
    """The placements of a canvas, cut from its composed `image`, any float dtype [height, width], in its order.

    `flip`: whether left and right are exchanged. `plain`: False for an augmented picture, whose traces may have another
    size: no bars. `scales_uv`: scales of the traces of each panel.
    """
    levels = (min(0.0, float(image.min())), max(1.0, float(image.max())))
    parts: list[Part] = []
    for placed in canvas.placed:
        part = _placement_part(placed, image, dataset, flip=flip)
        place = placed.placement
        bars = _bars(placed.spec, scales_uv.get(place.panel, ()), place.height) if plain else ()
        before = parts[-1] if parts else None
        if before is not None and before.title == part.title and before.bottom == part.bottom:
            parts[-1] = replace(before, bottom=Edge())
        parts.append(replace(part, range=levels, unit="" if before is not None else "pixel", bars=bars))
    shown = ""
    for number, part in enumerate(parts):
        if part.title == shown:  # one below the other without a gap: the unit would overprint the numbers above
            parts[number] = replace(part, title="", left=replace(part.left, unit=""))
        shown = part.title
    return parts


def _placement_part(placed: PlacedPanel, image: NDArray[Any], dataset: Dataset, *, flip: bool) -> Part:
    """One placement, turned so that time runs to the right and low frequencies are at the bottom."""
    place, spec = placed.placement, placed.spec
    pixels = image[place.top : place.bottom, place.left : place.right].astype(np.float64)
    crop = place.time_crop or (0, spec.shape[-1])
    if place.arrangement == "as_is":
        names = mirrored(spec.traces) if flip and place.flipped_panel else spec.traces
    else:
        names = mirrored(placed.regions) if flip else placed.regions
        pixels = pixels.T if place.arrangement == "time_down" else pixels
        if spec.rows_hz:
            pixels = pixels[_upward(len(pixels), len(names))]
    rows, columns = pixels.shape
    height = _height(spec, rows, columns, len(names))
    return Part(
        title=place.panel,
        pixels=pixels,
        colours=INK if spec.traces else POWER if spec.rows_hz else VALUES,
        range=(0.0, 1.0),
        unit="",
        left=_left(names, () if place.arrangement == "as_is" else spec.rows_hz, rows, height),
        bottom=time_edge(spec, crop, columns, SPACING * columns / WIDTH),
        height=height,
        **_times(spec, crop, columns, dataset),
    )


def trace_scales(render_config: Mapping[str, Any], panels: Mapping[str, PanelSpec]) -> dict[str, tuple[float, ...]]:
    """Scales of the traces of each trace picture of a shard set, microvolts; those that its recipe states."""
    options = render_config.get("panels")
    found: dict[str, tuple[float, ...]] = {}
    for name, spec in panels.items():
        panel = options.get(name) if isinstance(options, Mapping) else None
        arguments = panel.get("init_args") if isinstance(panel, Mapping) else None
        scales = arguments.get("scales_uv") if isinstance(arguments, Mapping) else None
        if isinstance(scales, list | tuple) and len(scales) == len(spec.traces):
            found[name] = tuple(float(scale) for scale in scales)
    return found


def _left(names: tuple[str, ...], rows_hz: tuple[float, ...], rows: int, height: int) -> Edge:
    return parts_edge(names, rows_hz, rows, SPACING * rows / height)


def _height(spec: PanelSpec, rows: int, columns: int, num_regions: int | None = None) -> int:
    """Height of a picture on the sheet."""
    if spec.traces:
        return min(MOST_ROWS, TRACE_ROWS * len(spec.traces))
    number = len(spec.regions) if num_regions is None else num_regions
    region = 2 * REGION_ROWS if number == 1 and spec.rows_hz else REGION_ROWS
    natural = region * number if number else round(rows * WIDTH / columns)
    return min(MOST_ROWS, max(natural, 40))


def _times(spec: PanelSpec, crop: tuple[int, int], columns: int, dataset: Dataset) -> dict[str, Any]:
    """Grid lines, every second where they have room, and the seconds that the label describes, as columns."""
    if not has_times(spec):
        return {}
    assert spec.columns_s is not None
    place, (low, high) = time_place(spec, crop, columns)
    step = 1.0 if high - low <= WINDOW_S + 1 else 60.0
    seconds = np.arange(np.ceil(low / step), np.floor(high / step) + 1)[:MOST_LINES] * step
    if dataset.signal == "audio":
        middle = dataset.window_s / 2
    else:
        middle = (WINDOW_S if spec.columns_s[1] <= WINDOW_S else dataset.context_s) / 2
    marked = (place(middle - dataset.annotated_s / 2), place(middle + dataset.annotated_s / 2))
    inside = all(0 < column < columns for column in marked)
    return {"grid": tuple(place(float(at)) for at in seconds), "marked": marked if inside else None}


def _bars(spec: PanelSpec, scales_uv: tuple[float, ...], rows: int) -> tuple[Bar, ...]:
    """Bars beside the traces of a picture of `rows` rows, if their scales are known."""
    if not scales_uv or len(scales_uv) != len(spec.traces) or spec.shape[0] != BAND_ROWS * len(spec.traces):
        return ()
    factor, bars, before = rows / spec.shape[0], [], ""
    for number, scale in enumerate(scales_uv):
        top = max(number * BAND_ROWS - BAND_ROWS // 2, 0)  # as `rasteriser.draw_traces` draws them
        bottom = min((number + 1) * BAND_ROWS + BAND_ROWS // 2, spec.shape[0])
        length_uv = BAR_UV[int(np.abs(np.log(np.array(BAR_UV) / scale)).argmin())]
        length = (bottom - top) * length_uv / (4 * scale)
        text = f"{length_uv} \N{MICRO SIGN}V"
        bars.append(Bar((top + bottom) / 2 * factor, length * factor, "" if text == before else text))
        before = text
    return tuple(bars)


def _without_strokes(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """A trace picture without the strokes at its ends, which are no signal."""
    values = values.copy()
    values[:, :2] = values[:, -3:] = 0
    return values


def _upward(rows: int, num_regions: int) -> NDArray[np.int64]:
    """Order of rows that turns each of the regions upside down."""
    bounds = np.round(np.linspace(0, rows, num_regions + 1)).astype(np.int64)
    return np.concatenate([np.arange(bounds[n], bounds[n + 1])[::-1] for n in range(num_regions)])
