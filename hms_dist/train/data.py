"""The rows of a run: a shard set opened, its patients split, its reader and canvas made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.config import CanvasConfig
from hms_dist.files import digest
from hms_dist.shards.index import Index, Manifest, Rows, open_set
from hms_dist.stream.plan import count_steps, plan_epoch
from hms_dist.stream.reader import ShardReader
from hms_dist.train.labels import TrainingLabels, training_labels
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True)
class ShardSet:
    """An opened shard set and what a canvas needs of it."""

    folder: Path
    manifest: Manifest
    index: Index
    reader: ShardReader
    canvas: Canvas

    def reader_of(self, panels: Sequence[str]) -> ShardReader:
        """A reader of these panels alone."""
        return ShardReader(self.folder, self.manifest, self.index, panels)


def open_shards(folder: Path, canvas: CanvasConfig, *, flips: bool) -> ShardSet:
    """Open a shard set for a canvas, with what flipped rows need or without it.

    Raises UserError if the set is incomplete or lacks a panel.
    """
    manifest, index = open_set(folder)
    return _for_canvas(folder, manifest, index, Canvas(canvas, manifest.panels, flips=flips))


def _for_canvas(folder: Path, manifest: Manifest, index: Index, canvas: Canvas) -> ShardSet:
    return ShardSet(folder, manifest, index, ShardReader(folder, manifest, index, canvas.panels), canvas)


def panel_recipes(shards: ShardSet) -> dict[str, str]:
    """For each panel that the canvas reads, a digest of the options it was rendered with."""
    recipes = shards.manifest.render_config["panels"]
    return {name: digest(recipes[name]) for name in shards.canvas.panels}


@dataclass(frozen=True)
class RunData:
    """Everything a run reads."""

    shards: ShardSet
    """As training reads it, with what flipped rows need."""
    plain: ShardSet
    """As evaluation reads it, without."""
    train_rows: Rows
    """Rows of the other folds: those that data-wide statistics are computed from."""
    validation_rows: Rows
    """Rows of the validation fold; empty with fold none."""
    labels: TrainingLabels
    """Rows open to training, and what they are trained towards."""
    steps_of: list[int]
    """Steps of each epoch."""

    @property
    def index(self) -> Index:
        """The index of the shard set."""
        return self.shards.index


def open_run_data(config: TrainConfig) -> RunData:
    """Open the shard set of a run and split it. All that can be refused about data is refused here."""
    plain = open_shards(config.shards, config.canvas, flips=False)
    canvas = Canvas(config.canvas, plain.manifest.panels, flips=config.flip_probability > 0)
    shards = _for_canvas(config.shards, plain.manifest, plain.index, canvas)
    train, validation = split_rows(config, shards.index)
    labels = training_labels(shards.index, train, config.filters, config.overlay)
    steps_of = count_steps(
        shards.index, labels.rows, config.selection,
        seed=config.seed, num_epochs=config.epochs, global_batch=config.global_batch,
    )  # fmt: skip
    return RunData(shards, plain, train, validation, labels, steps_of)


def epoch_rows(config: TrainConfig, data: RunData, epoch: int) -> Rows:
    """The plan of an epoch of a run: its rows in order."""
    return plan_epoch(
        data.index, data.labels.rows, config.selection,
        seed=config.seed, epoch=epoch, global_batch=config.global_batch, locality=config.locality,
    )  # fmt: skip


def split_rows(config: TrainConfig, index: Index) -> tuple[Rows, Rows]:
    """Training and validation rows: patients of the validation fold, as the index has it, against all others."""
    every = np.arange(len(index))
    if config.fold == "none":
        return every, every[:0]
    folds = index.folds(config.num_folds)
    return every[folds != config.fold], every[folds == config.fold]
