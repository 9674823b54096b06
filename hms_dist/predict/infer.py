"""Predicting every row of a shard set with the weights of a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.predictions import check_rows, prediction_table, write_predictions
from hms_dist.run import LOG
from hms_dist.train.checkpoint import load_weights
from hms_dist.train.data import ShardSet, open_shards, panel_recipes, split_rows
from hms_dist.train.evaluate import predict_rows
from hms_dist.train.folder import read_config, stored_weights
from hms_dist.train.run_canvas import read_canvas
from hms_dist.train.settings import TrainConfig
from hms_dist.train.world import open_world


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict every row of a shard set with the best weights of a run (final ones of a run without a fold)."""

    run: Path
    """Run folder."""
    shards: Path
    """Folder of the shard set."""
    out: Path
    """Table to write: .parquet, or .csv with Kaggle's submission columns."""
    threads: int = 2
    """Threads that read and decode samples."""

    def __post_init__(self) -> None:
        if self.out.suffix not in (".parquet", ".csv"):
            raise ValueError(f"out: expected a name ending in .parquet or .csv, found {self.out.name}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, found {self.threads}")


def run(command: Predict) -> None:
    """The verb `predict`."""
    if not (command.run / "config.yaml").is_file():
        raise UserError(f"{command.run}: not a run folder (no config.yaml); check --run")
    config = read_config(command.run)
    shards = open_shards(command.shards, read_canvas(command.run), flips=False)
    check_rows(command.out, shards.index.ids("eeg_id"))
    model = build(ModelConfig(name=config.model.name, compile=config.model.compile), seed=0)
    if config.precision == "float64":
        model.double()
    facts = load_weights(model, stored_weights(command.run))
    _check_recipe(command.shards, facts["panels"], shards)
    world = open_world(config.precision, config.timeout_s)
    prepared: torch.nn.Module = world.accelerator.prepare_model(model.to(world.device), evaluation_mode=True)
    rows = np.arange(len(shards.index))
    found = predict_rows(prepared, shards, rows, world, group_size=config.group_size, threads=command.threads)
    if world.is_main:
        folds = held_out_folds(config, shards, str(facts["shards"]))
        write_predictions(command.out, prediction_table(shards.index.frame, folds, found))
        LOG.info("%d rows predicted: %s", len(rows), command.out)


def _check_recipe(folder: Path, trained: Mapping[str, Any], shards: ShardSet) -> None:
    """Refuse a shard set whose panels were rendered otherwise than those that the model was trained on."""
    found = panel_recipes(shards)
    different = [name for name, recipe in found.items() if trained.get(name, recipe) != recipe]
    if different:
        raise UserError(
            f"{folder}: its {' and '.join(different)} were rendered with other options than those the run was trained "
            "on; render with the run's recipe"
        )


def held_out_folds(config: TrainConfig, shards: ShardSet, trained_on: str) -> NDArray[np.int64]:
    """For each row the run's validation fold if the run held its patient out, else -1: those are seen or unknown."""
    folds = np.full(len(shards.index), -1)
    if config.fold != "none" and shards.manifest.fingerprint == trained_on:
        folds[split_rows(config, shards.index)[1]] = config.fold
    return folds
