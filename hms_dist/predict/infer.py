"""Prediction of all rows of a shard set with the weights of a run, on any number of ranks, resumable after a kill."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from hms_dist.config.load import to_dict
from hms_dist.config.versions import CLASS_KEY, FORMAT_VERSION, OPTIONS_KEY, as_version_1, comparable_class
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest
from hms_dist.core.logging import LOG
from hms_dist.datasets import Dataset, read_dataset
from hms_dist.model.build import ModelConfig, build, compile_in_place
from hms_dist.predict.options import PredictConfig, opened_run
from hms_dist.predict.partial_results import Parts, begun, parts_folder
from hms_dist.predict.tta import mean_outputs, mirrored_canvas
from hms_dist.results.lineage import Source
from hms_dist.results.predictions import check_rows, prediction_table, write_predictions
from hms_dist.shards.index import Rows
from hms_dist.train.data.leakage import stored_record
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import ShardSet, check_recipes, composed_by, open_shards, split_rows
from hms_dist.train.folder.checkpoint import load_weights, noted
from hms_dist.train.folder.owner import owned
from hms_dist.train.folder.run_folder import stored_weights
from hms_dist.train.folder.stop import die_with_launcher
from hms_dist.train.learn.evaluate import evaluating, groups_of, in_order, padded, rows_at_once
from hms_dist.train.ranks.variables import check_variables
from hms_dist.train.ranks.world import World, launched_rank, open_world
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import Task, open_task


@dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Predict every row of a shard set with the weights of a run."""

    shards: str
    """Folder of the shard set, or its URL (http://, s3://, gs://)."""


def run(command: Predict) -> None:
    """Predict, and write the table; called by every rank. Rerun the same command after a kill.

    Raises UserError for errors that the user can correct, before the process group starts if possible.
    """
    die_with_launcher()
    config = opened_run(command)
    check_variables(config.precision)
    shards = open_shards(command.shards, read_canvas(command.run), flips=False, storage=command.storage)
    dataset = read_dataset(command.run)  # the run's: the shard set may have other labels, or none
    check_rows(command.out, shards.index.ids("eeg_id"), dataset)
    shards = composed_by(shards, mirrored_canvas(shards.canvas.config, shards.manifest.panels, command.tta))
    task = open_task(config, shards.canvas, dataset, shards.index.annotated_s)
    model, facts = load_model(command.run, config, dataset, command.checkpoint, command.weights)
    source = Source(model=stored_record(stored_weights(command.run, command.checkpoint), command.weights))
    weights = stored_weights(command.run, command.checkpoint)
    check_recipes(command.shards, shards, noted(facts, "panels", dict, weights))
    folder = parts_folder(command.out)
    is_main = launched_rank() == 0
    with owned(folder, is_main=is_main), closing(shards.reader):
        world = open_world(config.precision, config.timeout_s)
        with world.shutdown():
            size = rows_at_once(config.group_size, world.device)
            parts = Parts(
                begun(folder, *_keys(command, config, shards, model, world, size)), num_rows=len(shards.index),
                size=size, num_outputs=task.num_outputs,
            )  # fmt: skip
            outputs = _outputs(command, size, shards, model, world, task, parts)
            if world.is_main:
                folds = held_out_folds(config, shards, noted(facts, "shards", str, weights))
                table = prediction_table(shards.index.frame, folds, outputs[:, : dataset.num_classes], dataset)
                write_predictions(command.out, table, [source], dataset)
                LOG.info("%d rows predicted: %s", len(shards.index), command.out)
    if is_main:
        shutil.rmtree(folder)


def load_model(
    run: Path,
    config: TrainConfig,
    dataset: Dataset,
    checkpoint: str | None = None,
    weights: Literal["ema", "raw"] | None = None,
) -> tuple[nn.Module, Mapping[str, Any]]:
    """Load the network of a run with the requested weights, on the CPU, and the record next to them.

    `checkpoint` and `weights` as in `PredictConfig`.
    """
    kept = config.model
    kept = ModelConfig(name=kept.name, kwargs=kept.kwargs, sliding_window=kept.sliding_window)
    model = build(kept, 0, dataset.num_classes, size=(config.canvas.height, config.canvas.width))
    if config.precision == "float64":
        model.double()
    facts = load_weights(model, stored_weights(run, checkpoint), weights)
    return model, facts


def _keys(
    command: Predict, config: TrainConfig, shards: ShardSet, model: nn.Module, world: World, size: int
) -> tuple[str, str]:
    """Digest of everything that the predictions depend on, and the same as format version 1 computed it.

    Raises UserError if ranks disagree, because the run folder is being changed.
    """
    weights = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        weights.update(name.encode() + tensor.numpy().tobytes())
    facts = {
        "shards": shards.manifest.fingerprint,
        "weights": weights.hexdigest(),
        "canvas": to_dict(shards.canvas.config),
        "model": _comparable(config.model),
        "loss": config.loss.name,
        "precision": config.precision,
        "group_size": size,
        "channels_last": world.device.type == "cuda",
        "compile_mode": command.compile_mode,
        "tta": sorted(command.tta),
        "torch": torch.__version__,
        "device": world.device.type,
    }
    keys = (digest(facts), digest(as_version_1(facts)))
    if keys != world.broadcast(keys):
        raise UserError(f"{command.run}: changed while it was read; predict again, with --checkpoint step-<8 digits>")
    return keys


def _comparable(model: ModelConfig) -> Any:
    """Options of a model, without later additions that have the value of earlier runs."""
    return comparable_class({CLASS_KEY: "ModelConfig", OPTIONS_KEY: to_dict(model)}, FORMAT_VERSION)[OPTIONS_KEY]


def _outputs(
    command: Predict, size: int, shards: ShardSet, model: nn.Module, world: World, task: Task, parts: Parts
) -> NDArray[np.float64]:
    """Network outputs [rows, num_outputs] of all rows on the main rank: those of finished parts, and the others
    computed."""
    kept = parts.finished() if world.is_main else {}
    todo = world.broadcast([number for number in parts.numbers if number not in kept])
    if kept:
        LOG.info("%d of %d parts were already finished", len(kept), len(parts.numbers))
    mine: Sequence[int] = todo[world.rank :: world.num_ranks]
    if world.device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compile_in_place(model, command.compile_mode)
    prepared: nn.Module = world.accelerator.prepare_model(model.to(world.device), evaluation_mode=True)
    groups = [(number, group) for number in mine for group in groups_of(parts.rows_of(number), size)]
    whole = [padded(group, size)[0] for _, group in groups]
    with evaluating(prepared):
        found = mean_outputs(
            prepared, shards, whole, world.device, task=task, mirrors=command.tta, threads=command.threads
        )
        bar = tqdm(zip(groups, found, strict=True), "predict", len(groups), disable=None if world.is_main else True)
        for number, of_part in groupby(bar, lambda item: item[0][0]):
            kept[number] = np.concatenate([outputs[: len(group)] for (_, group), outputs in of_part])
            parts.write(number, kept[number])
    rows: list[Rows] = [parts.rows_of(number) for number in kept]
    empty = np.empty((0, task.num_outputs))
    gathered = world.gather_rows(
        np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([empty, *kept.values()])
    )
    return in_order(np.arange(len(shards.index)), *gathered)


def held_out_folds(config: TrainConfig, shards: ShardSet, trained_on: str) -> NDArray[np.int64]:
    """Return for each row [samples] the run's validation fold if it held out the patient, else -1 (seen or unknown)."""
    folds = np.full(len(shards.index), -1)
    if config.fold != "none" and shards.manifest.fingerprint == trained_on:
        folds[split_rows(config, shards.index)[1]] = config.fold
    return folds
