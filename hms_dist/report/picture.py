"""Pictures for people: a panel or a canvas as a gray PNG, and a sample's panels on one sheet.

Pictures are uint8 [height, width], 0 black. Model inputs are not affected.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hms_dist.core.files import atomic
from hms_dist.shards.schema import PanelSpec

Picture = NDArray[np.uint8]

CAPTION_ROWS = 16
"""Height of the strip above each picture of a sheet, pixels."""
MARGIN = 4
"""Space between a sheet's edge and its captions, pixels."""


def save_gray(path: Path, values: NDArray[Any], *, low: float = 0.0, high: float = 1.0) -> None:
    """Write `values` [height, width] as a gray PNG, `low` black and `high` white."""
    save_picture(path, gray(values, low=low, high=high))


def save_picture(path: Path, picture: Picture) -> None:
    """Write a picture as PNG, atomically."""
    with atomic(path) as file:
        Image.fromarray(picture).save(file, format="png")


def gray(values: NDArray[Any], *, low: float, high: float) -> Picture:
    """Convert `values` of any shape to gray levels: `low` and less 0, `high` and more 255, NaN 0. Raises ValueError if
    `high` is not above `low`."""
    if not low < high:
        raise ValueError(f"high: must be above low, found {low} and {high}")
    levels = np.clip((np.nan_to_num(values.astype(np.float64), nan=low) - low) / (high - low), 0, 1)
    return np.rint(levels * 255).astype(np.uint8)


def panel_picture(spec: PanelSpec, stored: NDArray[Any]) -> Picture:
    """Draw one sample's panel from its stored array (bits packed).

    Regions below each other, time to the right, high frequencies on top, as spectrograms are usually shown. float16
    panels are scaled between the 1 % and 99 % quantile of their finite values; gaps are black.
    """
    if spec.dtype == "bit":
        picture = np.unpackbits(stored, axis=-1) * np.uint8(255)
    elif spec.dtype == "uint8":
        picture = stored
    else:
        finite = stored[np.isfinite(stored)].astype(np.float64)
        low, high = np.quantile(finite, [0.01, 0.99]) if finite.size else (0.0, 1.0)
        picture = gray(stored, low=float(low), high=float(max(high, low + 1e-3)))
    if "frequency" in spec.axes:
        picture = np.flip(picture, spec.axes.index("frequency"))
    return np.ascontiguousarray(picture).reshape(-1, picture.shape[-1])


def contact_sheet(pictures: Mapping[str, Picture]) -> Picture:
    """The pictures below each other, each with its name above, on dark gray. Raises ValueError for none."""
    if not pictures:
        raise ValueError("pictures: a sheet needs at least one")
    width = max(picture.shape[1] for picture in pictures.values())
    height = sum(picture.shape[0] + CAPTION_ROWS for picture in pictures.values())
    sheet = Image.new("L", (width, height), 40)
    pen, top = ImageDraw.Draw(sheet), 0
    for name, picture in pictures.items():
        pen.text((MARGIN, top + MARGIN // 2), name, fill=255)
        sheet.paste(Image.fromarray(picture), (0, top + CAPTION_ROWS))
        top += picture.shape[0] + CAPTION_ROWS
    return np.asarray(sheet)
