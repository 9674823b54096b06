"""The rows of a run: a shard set opened, its patients split, its reader and canvas made."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.config import CanvasConfig
from hms_dist.errors import UserError
from hms_dist.shards.index import Index, Manifest, read_index, read_manifest
from hms_dist.shards.schema import INDEX_NAME
from hms_dist.stream.plan import Rows, plan_epoch
from hms_dist.stream.reader import ShardReader
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True)
class ShardSet:
    """An opened shard set and what a canvas needs of it."""

    manifest: Manifest
    index: Index
    reader: ShardReader
    canvas: Canvas


def open_shards(folder: Path, canvas: CanvasConfig, *, flips: bool) -> ShardSet:
    """Open a shard set for a canvas, with what flipped rows need or without it.

    Raises UserError if the set is incomplete or lacks a panel.
    """
    manifest = read_manifest(folder)
    index = read_index(folder / INDEX_NAME)
    if len(index) != manifest.num_samples:
        raise UserError(
            f"{folder / INDEX_NAME}: expected {manifest.num_samples} rows, found {len(index)}; run hms-dist verify"
        )
    return _for_canvas(folder, manifest, index, Canvas(canvas, manifest.panels, flips=flips))


def _for_canvas(folder: Path, manifest: Manifest, index: Index, canvas: Canvas) -> ShardSet:
    return ShardSet(manifest, index, ShardReader(folder, manifest, index, canvas.panels), canvas)


@dataclass(frozen=True)
class RunData:
    """Everything a run reads."""

    shards: ShardSet
    """As training reads it, with what flipped rows need."""
    plain: ShardSet
    """As evaluation reads it, without."""
    train_rows: Rows
    """Rows open to training, before the selection of an epoch."""
    validation_rows: Rows
    """Rows of the validation fold; empty with fold none."""

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
    plan_epoch(
        shards.index, train, config.selection, seed=config.seed, epoch=0, global_batch=config.global_batch
    )  # refuses a selection that leaves too few rows
    return RunData(shards, plain, train, validation)


def split_rows(config: TrainConfig, index: Index) -> tuple[Rows, Rows]:
    """Training and validation rows: patients of the validation fold, as the index has it, against all others."""
    every = np.arange(len(index))
    if config.fold == "none":
        return every, every[:0]
    folds = index.folds(config.num_folds)
    return every[folds != config.fold], every[folds == config.fold]
