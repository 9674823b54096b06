"""`hms-dist show`: a sample of a shard set as a PNG, panel by panel or as the canvas that a model sees."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.config import CanvasConfig
from hms_dist.report.picture import contact_sheet, panel_picture, save_gray, save_picture
from hms_dist.run import LOG
from hms_dist.shards.index import read_index, read_manifest
from hms_dist.shards.schema import INDEX_NAME
from hms_dist.stream.reader import ShardReader


@dataclass(frozen=True, kw_only=True)
class Show:
    """Draw one sample as a PNG: all its panels on a sheet or, with a canvas, what a model sees."""

    shards: Path
    """Folder of the shard set."""
    key: str
    """Sample to draw: <eeg_id>-<eeg_sub_id>."""
    out: Path
    """Picture to write, a name ending in .png."""
    canvas: CanvasConfig | None = None
    """Canvas to draw, such as configs/canvas/sixteenth_place.yaml. None: every panel, one under the other."""
    flip: bool = False
    """Draw the canvas with left and right exchanged."""

    def __post_init__(self) -> None:
        if self.out.suffix != ".png":
            raise ValueError(f"out: expected a name ending in .png, found {self.out.name}")
        if self.flip and self.canvas is None:
            raise ValueError("flip: a sheet of panels is not flipped; give a canvas")


def run(command: Show) -> None:
    """The verb `show`. Raises UserError for an unknown key or a canvas that the set cannot fill."""
    manifest = read_manifest(command.shards)
    index = read_index(command.shards / INDEX_NAME)
    row = np.array([index.row_of(command.key)])
    if command.canvas is None:
        panels = ShardReader(command.shards, manifest, index, list(manifest.panels)).read(row)
        pictures = {name: panel_picture(manifest.panels[name], stored[0]) for name, stored in panels.items()}
        save_picture(command.out, contact_sheet(pictures))
    else:
        canvas = Canvas(command.canvas, manifest.panels, flips=command.flip)
        stored = ShardReader(command.shards, manifest, index, canvas.panels).read(row)
        flip = torch.tensor([True]) if command.flip else None
        image = canvas({name: torch.from_numpy(array) for name, array in stored.items()}, flip)[0, 0].numpy()
        save_gray(command.out, image, low=min(0.0, float(image.min())), high=max(1.0, float(image.max())))
    LOG.info("%s drawn: %s", command.key, command.out)
