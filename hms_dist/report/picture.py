"""Pictures for people: a panel or a canvas as a gray PNG.

Pictures are uint8 [height, width], 0 black. Model inputs are not affected.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hms_dist.core.files import atomic
from hms_dist.shards.schema import PanelSpec

Picture = NDArray[np.uint8]
MOST_PIXELS = 8192
"""Most rows, and most columns, of a panel that are drawn."""
LINE_ROWS, MOST_COLUMNS = 96, 1024
"""Rows of a channel of a signal, and most columns."""


def save_gray(path: Path, values: NDArray[Any], *, low: float = 0.0, high: float = 1.0) -> None:
    """Write `values` [height, width], any dtype, as a gray PNG, `low` black and `high` white."""
    save_picture(path, gray(values, low=low, high=high))


def save_picture(path: Path, picture: Picture) -> None:
    """Write a picture [height, width] or [height, width, 3] as PNG, atomically."""
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="png")


def gray(values: NDArray[Any], *, low: float, high: float) -> Picture:
    """Convert `values` of any shape and any dtype to gray levels: `low` and less 0, `high` and more 255, NaN 0. Raises
    ValueError if `high` is not above `low`."""
    if not low < high:
        raise ValueError(f"high: must be above low, found {low} and {high}")
    levels = np.clip((np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low), 0, 1)
    return np.rint(levels * 255).astype(np.uint8)


def panel_picture(spec: PanelSpec, stored: NDArray[Any]) -> Picture:
    """Draw one sample's panel from its stored array (bits packed), as `panel_values` arranges it, in gray levels."""
    values = panel_values(spec, stored)
    low, high = shown_range(spec, values)
    return gray(values, low=low, high=high)


def panel_values(spec: PanelSpec, stored: NDArray[Any]) -> NDArray[np.float64]:
    """Values of one sample's panel, in its unit, from its stored array (the dtype of `spec`, bits packed): [rows,
    columns].

    Regions below each other, time to the right, low frequencies at the bottom, as spectrograms are usually shown. Of
    huge panels only some rows and columns, evenly spaced. Signals are drawn as lines: 1 where there is one, else 0.
    """
    if spec.dtype == "bit":
        stored = np.unpackbits(stored, axis=-1)
    if spec.dtype == "int16":
        return _envelope(stored)
    if "frequency" in spec.axes:
        stored = np.flip(stored, spec.axes.index("frequency"))
    stored = stored.reshape(-1, stored.shape[-1])
    rows, columns = (-(-size // MOST_PIXELS) for size in stored.shape)
    values = stored[::rows, ::columns].astype(np.float64)
    if spec.value_range is not None:
        low, high = spec.value_range
        values = low + values * ((high - low) / 255)
    return values


def shown_range(spec: PanelSpec, values: NDArray[np.float64]) -> tuple[float, float]:
    """Values shown as black and white: all that are possible, or the 1 % and 99 % quantile of the finite ones of
    `values` [rows, columns]."""
    if spec.dtype in ("bit", "int16"):
        return 0.0, 1.0
    if spec.value_range is not None:
        return spec.value_range
    finite = values[np.isfinite(values)]
    low, high = np.quantile(finite, [0.01, 0.99]) if finite.size else (0.0, 1.0)
    return float(low), float(max(high, low + 1e-3))


def _envelope(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Draw the range of the samples in each column, from the loudest upwards to the loudest downwards, channels below
    each other: [channels * LINE_ROWS, columns]."""
    columns = min(MOST_COLUMNS, samples.shape[-1])
    starts = np.linspace(0, samples.shape[-1], columns, endpoint=False).astype(np.int64)
    peak = max(int(np.abs(samples.astype(np.int32)).max(initial=0)), 1)
    ends = [reduce.reduceat(samples, starts, axis=-1) / peak for reduce in (np.minimum, np.maximum)]
    low, high = ((1 - end) / 2 * (LINE_ROWS - 1) for end in ends)  # rows of the lowest and the highest sample
    rows = np.arange(LINE_ROWS)[:, None]
    inside = (rows >= np.floor(high)[:, None]) & (rows <= np.ceil(low)[:, None])
    return inside.astype(np.float64).reshape(-1, columns)
