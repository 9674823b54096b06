"""`hms-dist show`: draw a sample of a shard set, as panels or as a canvas, or a window of a recording, as a PNG."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment import AugmentConfig, Augmenter, draw_reversals, one_group, row_facts
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.core.files import atomic
from hms_dist.core.keyed import check_seed
from hms_dist.core.logging import LOG
from hms_dist.imports.options import ReadingOptions
from hms_dist.recordings.audio import is_audio
from hms_dist.report.clip_picture import window_parts
from hms_dist.report.parts import box_of, canvas_parts, panel_part, trace_scales
from hms_dist.report.picture import save_gray
from hms_dist.report.recording_window import parse_time, recording_parts
from hms_dist.report.sheet import Part, check_matplotlib, sheet
from hms_dist.shards.index import Index, open_set
from hms_dist.shards.manifest import Manifest
from hms_dist.stream.read.reader import ShardReader
from hms_dist.train.data.run_data import open_shards
from hms_dist.train.data.statistics import filled, needs_statistics, row_moments


@dataclass(frozen=True, kw_only=True)
class Show(ReadingOptions):
    """Draw one sample as a PNG: all its panels on a sheet or, with a canvas, the model's input.

    Sheets have colour scales, microvolt bars, names, frequencies (low ones at the bottom) and times (to the right);
    they need matplotlib, extra `report`. Dashed lines are the seconds that the label describes.
    """

    shards: Path | None = None
    """Folder of the shard set. None: draw a window of `recording`."""
    recording: Path | None = None
    """A recording (.edf, .bdf, .mat, ...), read as hms-dist import does, or a clip of audio (.flac, .wav). None: draw a
    sample of `shards`."""
    at: str = "0"
    """With recording: the middle of the window, as seconds or HH:MM:SS after the first sample."""
    out: Path
    """PNG file to write (.png)."""
    key: str | None = None
    """Sample to draw: <eeg_id>-<eeg_sub_id>. None: the first of the set."""
    canvas: CanvasConfig | None = None
    """Canvas to draw, such as configs/canvas/sixteenth_place.yaml. None: all panels, below each other."""
    flip: bool = False
    """Draw the canvas with left and right exchanged."""
    augment: AugmentConfig | None = None
    """Augmentations, such as configs/augment/sixteenth_place.yaml, as in training with this seed at an epoch, except
    mixing with other rows. None: the canvas as in evaluation."""
    epoch: int = 0
    """Number of the epoch whose augmentations are drawn, from 0."""
    seed: int = 0
    """Seed of the augmentations: that of a run."""
    axes: bool = False
    """Draw the canvas as a sheet: its panels below each other, labelled, each the same way up. False: the picture
    alone, pixel for pixel as the model sees it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.shards is None) == (self.recording is None):
            found = "neither" if self.shards is None else "both"
            raise ValueError(f"shards: expected --shards or --recording, one of the two, found {found}")
        if self.recording is not None and (self.canvas is not None or self.key is not None):
            raise ValueError("recording: is drawn as panels at a time; leave out --canvas and --key")
        if self.recording is not None:
            self.check_signal(self.recording)
        parse_time(self.at)
        if self.out.suffix != ".png":
            raise ValueError(f"out: expected a name ending in .png, found {self.out.name}")
        for name in ("flip", "axes", "augment"):
            if getattr(self, name) and self.canvas is None:
                raise ValueError(f"{name}: is for canvases, not for a sheet of panels; give --canvas")
        if self.epoch < 0:
            raise ValueError(f"epoch: expected at least 0, found {self.epoch}")
        if self.augment is not None:
            check_seed("seed", self.seed)
            assert self.canvas is not None
            self.augment.check(self.canvas)


def run(command: Show) -> None:
    """Run the command `show`. Raises UserError for an unknown key or a canvas that does not fit the set."""
    if command.axes or command.canvas is None:
        check_matplotlib("out: sheets", "give --canvas without --axes")
    if command.recording is not None:
        drawn = _draw_recording(command, command.recording)
    else:
        assert command.shards is not None
        draw = _draw_panels if command.canvas is None else _draw_canvas
        drawn = draw(command, command.shards)
    LOG.info("%s drawn: %s", drawn, command.out)


def _draw_recording(command: Show, recording: Path) -> str:
    """Draw the default panels of a window; return its time."""
    if is_audio(recording):
        times, parts = window_parts(recording, parse_time(command.at))
        drawn = f"{recording.name}, {times}"
    else:
        parts = recording_parts(recording, parse_time(command.at), command)
        drawn = f"{recording.name} at {command.at}"
    _save_sheet(command.out, parts, drawn)
    return drawn


def _draw_panels(command: Show, folder: Path) -> str:
    """Draw a sheet of panels; return the sample's key."""
    manifest, index = open_set(folder)
    row = _row_of(command.key, index)
    parts = row_parts(manifest, index, ShardReader(folder, manifest, index, list(manifest.panels)), row)
    _save_sheet(command.out, parts, _title(index, row))
    return _key(index, row)


def row_parts(manifest: Manifest, index: Index, reader: ShardReader, row: int) -> list[Part]:
    """The parts of a sheet of one row: all panels that the reader reads, traces first."""
    specs, scales = manifest.panels, trace_scales(manifest.render_config, manifest.panels)
    stored, box = reader.read(np.array([row])), box_of(index, row)
    parts = [
        panel_part(name, specs[name], stored[name][0], index.dataset, scales.get(name, ()), box)
        for name in sorted(stored, key=lambda name: (not specs[name].traces, name))
    ]
    if index.dataset.signal == "eeg":
        return parts
    if box is None:  # no annotation
        return [replace(part, marked=None) for part in parts]
    targets = index.targets[row]
    known = np.isfinite(targets) if index.dataset.target == "yes_no" else targets > 0
    names = ", ".join(np.array(index.dataset.classes)[known])
    dashed = not (targets > 0).any()
    return [replace(part, dashed=(dashed,), box_names=(names,)) if part.boxes else part for part in parts]


def _save_sheet(out: Path, parts: list[Part], title: str) -> None:
    content = sheet(parts, title=title)
    with atomic(out) as file:
        file.write(content)


def _draw_canvas(command: Show, folder: Path) -> str:
    """Draw the canvas; return the sample's key."""
    config = command.canvas
    assert config is not None
    shards = open_shards(folder, config, flips=command.flip)
    row = _row_of(command.key, shards.index)
    canvas = shards.canvas
    if needs_statistics(config):
        LOG.info("data-wide statistics are computed from every row of %s; a run's own are in its canvas.yaml", folder)
        _, moments = row_moments(shards, np.arange(len(shards.index)), threads=2)
        canvas = Canvas(filled(config, moments), shards.manifest.panels, flips=command.flip)
    flips = np.array([command.flip])
    panels = {name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([row]), flips).items()}
    image, notes = _composed(command, canvas, panels, shards.index, row)
    if command.axes:
        scales = trace_scales(shards.manifest.render_config, shards.manifest.panels)
        parts = canvas_parts(canvas, image, shards.dataset, scales, flip=command.flip, plain=command.augment is None)
        if shards.dataset.signal == "audio":  # annotations are anywhere in a row
            parts = [replace(part, marked=None) for part in parts]
        _save_sheet(command.out, parts, _title(shards.index, row, *notes))
    else:
        save_gray(command.out, image, low=min(0.0, float(image.min())), high=max(1.0, float(image.max())))
    return _key(shards.index, row)


def _row_of(key: str | None, index: Index) -> int:
    return 0 if key is None else index.row_of(key)


def _key(index: Index, row: int) -> str:
    return str(index.frame["key"].iloc[row])


def _composed(
    command: Show, canvas: Canvas, panels: dict[str, Tensor], index: Index, row: int
) -> tuple[NDArray[np.float32], list[str]]:
    """Compose the picture [height, width] of one row, with augmentations if given; also notes for its title."""
    rows, flip = np.array([row]), torch.tensor([True]) if command.flip else None
    notes = ["left and right exchanged"] if command.flip else []
    if command.augment is None:
        return canvas(panels, flip)[0, 0].numpy(), notes
    when, probability = {"seed": command.seed, "epoch": command.epoch}, command.augment.reverse_probability
    labels = index.targets if index.labelled else np.full((len(index), 1), np.nan)
    augmenter, targets = Augmenter(command.augment, canvas, row_facts(index, labels)), torch.zeros(1, 0)
    changed, _ = augmenter.signals(panels, targets, one_group(rows), **when)
    reverse = draw_reversals(rows, **when, probability=probability)
    images = canvas(changed, flip, reverse)
    notes.append(f"augmented (seed {command.seed}, epoch {command.epoch}), axes are those before it")
    if reverse is not None and bool(reverse[0]):
        notes.append("time runs backwards")
    return augmenter(images, targets, one_group(rows), **when)[0][0, 0].numpy(), notes


def label_texts(index: Index, row: int) -> list[str]:
    """The label of a row: a text for each class that has votes, or is known; then the number of unknown classes."""
    classes = index.dataset.classes
    if index.dataset.target == "shares":
        return [f"{name} {votes}" for name, votes in zip(classes, index.votes[row], strict=True) if votes]
    words, targets = {1.0: "yes", 0.0: "no"}, index.targets[row].tolist()
    known = [f"{name} {words[found]}" for name, found in zip(classes, targets, strict=True) if found in words]
    return [*known, f"{len(targets) - len(known)} unknown"] if len(known) < len(targets) else known


def _title(index: Index, row: int, *notes: str) -> str:
    """Key, votes and notes."""
    return "   ".join([_key(index, row), *(label_texts(index, row) if index.labelled else ()), *notes])
