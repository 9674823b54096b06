"""Data of a run: the opened shard set, the split of its patients, its reader and canvas."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from hms_dist.canvas.augment import GroupedRows, RowFacts, draw_flips, partner_places, row_facts
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.versions import as_version_1, comparable_class, split_version
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest
from hms_dist.datasets import Dataset
from hms_dist.shards.index import Index, Rows, open_set
from hms_dist.shards.manifest import Manifest
from hms_dist.stream.read.batch import Request
from hms_dist.stream.read.block_memory import BlockMemory, block_bounds
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.storage import StorageConfig
from hms_dist.stream.rows.epoch_plan import Pass, count_steps, plan_epoch
from hms_dist.stream.rows.locality import LocalityConfig
from hms_dist.train.data.leakage import check_leaks
from hms_dist.train.data.target_kind import check_known, check_options
from hms_dist.train.data.training_rows import TrainingLabels, training_labels
from hms_dist.train.optimise.loss_config import check_targets
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import Task, open_task


@dataclass(frozen=True)
class ShardSet:
    """An opened shard set with its reader and canvas."""

    location: str | Path
    """Folder or URL."""
    storage: StorageConfig
    manifest: Manifest
    index: Index
    reader: ShardReader
    canvas: Canvas

    @property
    def dataset(self) -> Dataset:
        """The data set that the rows are of."""
        return self.index.dataset

    def reader_of(self, panels: Sequence[str]) -> ShardReader:
        """Create a reader of only these panels."""
        return ShardReader(self.location, self.manifest, self.index, panels, storage=self.storage)


def open_shards(
    location: str | Path, canvas: CanvasConfig, *, flips: bool, storage: StorageConfig | None = None
) -> ShardSet:
    """Open a shard set for a canvas, with or without the panels of flipped rows.

    Raises UserError if the set is incomplete or lacks a panel.
    """
    storage = storage or StorageConfig()
    manifest, index = open_set(location)
    return _for_canvas(location, storage, manifest, index, Canvas(canvas, manifest.panels, flips=flips))


def composed_by(shards: ShardSet, canvas: Canvas) -> ShardSet:
    """Return the same shard set with the reader for another canvas."""
    return _for_canvas(shards.location, shards.storage, shards.manifest, shards.index, canvas)


def _for_canvas(
    location: str | Path, storage: StorageConfig, manifest: Manifest, index: Index, canvas: Canvas
) -> ShardSet:
    reader = ShardReader(location, manifest, index, canvas.panels, swaps=canvas.swaps, storage=storage)
    return ShardSet(location, storage, manifest, index, reader, canvas)


def panel_recipes(shards: ShardSet) -> dict[str, str]:
    """For each panel of the canvas, a digest of the options it was rendered with."""
    return {name: digest(recipe) for name, recipe in _recipes(shards).items()}


def _recipes(shards: ShardSet) -> dict[str, Any]:
    options, version = split_version(shards.manifest.render_config, str(shards.location))
    panels = options.get("panels") or {}
    return {name: comparable_class(panels[name], version) if name in panels else None for name in shards.canvas.members}


def check_recipes(folder: str, shards: ShardSet, trained: Mapping[str, str]) -> None:
    """Raise UserError if the panels of the set in `folder` were rendered with other options than those a run was
    `trained` on."""
    different = [
        name
        for name, recipe in _recipes(shards).items()
        if trained.get(name) not in (None, digest(recipe), digest(as_version_1(recipe)))
    ]
    if different:
        raise UserError(
            f"{folder}: its {' and '.join(different)} were rendered with other options than those the run was trained "
            "on; render with the run's recipe, its render.yaml"
        )


@dataclass(frozen=True)
class RunData:
    """Everything that a run reads."""

    shards: ShardSet
    """Shard set for training, with the panels of flipped rows."""
    plain: ShardSet
    """Shard set for evaluation, without them."""
    train_rows: Rows
    """Rows [n] of the other folds, from which data-wide statistics are computed."""
    validation_rows: Rows
    """Rows [m] of the validation fold; empty with fold none."""
    labels: TrainingLabels
    """Training rows and their targets."""
    steps_of: list[int]
    """Steps of each epoch."""

    @property
    def index(self) -> Index:
        """The index of the shard set."""
        return self.shards.index

    @cached_property
    def facts(self) -> RowFacts:
        """Facts about all rows that augmentations depend on."""
        return row_facts(self.index, self.labels.targets)

    def close(self) -> None:
        """Release the memory and the files of its readers."""
        for shards in (self.shards, self.plain):
            shards.reader.close()


def open_run_data(config: TrainConfig) -> RunData:
    """Open the shard set of a run and split it. All checks of the data are made here."""
    plain = open_shards(config.shards, config.canvas, flips=False, storage=config.storage)
    canvas = Canvas(config.canvas, plain.manifest.panels, flips=config.flip_probability > 0)
    shards = _for_canvas(config.shards, config.storage, plain.manifest, plain.index, canvas)
    check_options(config, shards.dataset)
    if config.locality is not None:
        shards.reader.storage = by_blocks(shards, config.locality)
    train, validation = split_rows(config, shards.index)
    check_known(config, shards.index, validation)
    open_task(
        config, canvas, shards.dataset, shards.index.annotated_s
    )  # raises for a canvas that the model cannot take
    labels = training_labels(shards.index, train, config.filters, config.overlay)
    check_leaks(config, shards.index, validation)
    check_targets(labels.targets, shards.index.frame["key"].tolist(), shards.dataset)
    steps_of = count_steps(
        shards.index, labels.rows, config.selection,
        seed=config.seed, num_epochs=config.epochs, global_batch=config.global_batch,
    )  # fmt: skip
    return RunData(shards, plain, train, validation, labels, steps_of)


def by_blocks(shards: ShardSet, locality: LocalityConfig) -> BlockMemory:
    """Storage of a shard set, read in the blocks of the `locality` order."""
    bounds = block_bounds(shards.index, shards.reader.tars, list(shards.manifest.panels), locality.block_rows)
    return BlockMemory(shards.reader.storage, bounds, locality.num_kept)


def epoch_rows(config: TrainConfig, data: RunData, epoch: int) -> Rows:
    """The plan of an epoch of a run: its rows [steps * global_batch] in order."""
    return plan_epoch(
        data.index, data.labels.rows, config.selection,
        seed=config.seed, epoch=epoch, global_batch=config.global_batch, locality=config.locality,
    )  # fmt: skip


def requests_of(
    config: TrainConfig, data: RunData, task: Task, epoch: int, rows: Rows, steps: range, passes: Sequence[Pass]
) -> Iterator[Request]:
    """Read requests of a rank's passes of some steps of an epoch, step by step; flips are drawn here, row by row.

    `rows` is the epoch's plan, as `epoch_rows` returns it. Rows of split groups come with the rows of other ranks that
    they are mixed with.
    """
    size = config.global_batch
    for step, one in product(steps, passes):
        planned = rows[step * size : (step + 1) * size]
        places = one.places
        if one.is_split:
            places = np.concatenate([places, _partners(config, data, task, planned, one, epoch, step)])
        mine, flips = planned[places], None
        if data.shards.canvas.flips:
            flips = draw_flips(mine, seed=config.seed, epoch=epoch, probability=config.flip_probability).numpy()
        yield Request(mine, flips, places, config.group_size, len(one))


def _partners(config: TrainConfig, data: RunData, task: Task, planned: Rows, one: Pass, epoch: int, step: int) -> Rows:
    """Places of further rows that a pass of split groups reads: those its own are mixed with, or, where damaged rows
    are replaced, all others of its groups: then every rank that shares a group sees the same damage."""
    every = np.flatnonzero(np.isin(np.arange(len(planned)) // config.group_size, one.places // config.group_size))
    if config.on_error == "replace":
        return np.setdiff1d(every, one.places)
    groups = GroupedRows(planned[every], every, config.group_size, 0)
    mixed = partner_places(config.augment, groups, one.places, seed=config.seed, epoch=epoch, facts=data.facts)
    return np.union1d(mixed, task.partner_places(groups, one.places, (config.seed, epoch, step)))


def split_rows(config: TrainConfig, index: Index) -> tuple[Rows, Rows]:
    """Return training rows [n] and validation rows [m]: the latter are those of the validation fold's patients, the
    former all others except those of the folds left out."""
    every = np.arange(len(index))
    if config.fold == "none" and not config.left_out_folds:
        return every, every[:0]
    folds = index.folds(config.num_folds)
    held_out = folds == config.fold
    return every[~held_out & ~np.isin(folds, config.left_out_folds)], every[held_out]
