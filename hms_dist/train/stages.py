"""Stages of one run in one configuration, such as all rows and then a selection, or votes and then pseudo-labels.

Each stage is a run with its own folder, RUN/stages/<name>/; the last one is RUN itself, so that later commands
(predict, score, report) need not know about stages. The stages share the launch, the process group and the lease.
"""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.model.build import check_weights
from hms_dist.model.fit import check_fit
from hms_dist.model.names import check_name
from hms_dist.shards.manifest import read_manifest
from hms_dist.train.data.leakage import initial_changed
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.checkpoint import product_file, read_meta
from hms_dist.train.folder.record import CONFIG_NAME, STAGES, is_finished
from hms_dist.train.folder.run_folder import BEST, FINAL, check_folder, holds_another, read_config, stored_weights
from hms_dist.train.folder.whole_folder import present
from hms_dist.train.ranks.world import launched_ranks
from hms_dist.train.settings import TrainConfig


def stage_runs(config: TrainConfig) -> list[TrainConfig]:
    """Split a configuration into the runs of its stages, in order; itself if it has none.

    Options that a stage does not set are the run's. The `model.weights` of a stage that starts from an earlier one is a
    path in that one's folder.
    """
    if config.init is not None:
        config = replace(config, model=replace(config.model, weights=_weights_of(config, config.init)))
    if not config.stages:
        return [config]
    runs: list[TrainConfig] = []
    folders: dict[str, Path] = {}
    for stage in config.stages:
        last = stage is config.stages[-1]
        out = config.out if last else config.out / STAGES / stage.name
        model = config.model
        if stage.init != "pretrained":
            kind, _, name = stage.init.partition(":")
            folder = folders[name] / (BEST if kind == "best" else FINAL)
            model = replace(model, weights=str(product_file(folder, averaged=config.ema.decay is not None)))
        runs.append(replace(config, stages=(), out=out, model=model, **stage.options))
        folders[stage.name] = out
    return runs


def _weights_of(config: TrainConfig, run: Path) -> str:
    """Return the file of the weights of `run`, from which training starts.

    Raises UserError for a folder that is not a finished run, and for another network.
    """
    if not (run / CONFIG_NAME).is_file():
        raise UserError(f"init: {run} is not a run folder (no {CONFIG_NAME}); check the path, or restore the run")
    before, now = read_config(run).model, config.model
    if (before.name, before.kwargs, before.sliding_window is None) != (
        now.name,
        now.kwargs,
        now.sliding_window is None,
    ):
        raise UserError(f"init: {run} trained another network ({before.name}), expected {now.name}; set the same model")
    folder = stored_weights(run, None)
    averaged = product_file(folder, averaged=True)
    return str(averaged if averaged.is_file() else product_file(folder, averaged=False))


def open_stages(config: TrainConfig) -> list[TrainConfig]:
    """The unfinished runs of `stage_runs`; always includes the last one."""
    runs = stage_runs(config)
    return [run for run in runs[:-1] if not is_finished(run.out)] + runs[-1:]


def check_folders(config: TrainConfig) -> None:
    """Compare every stage, finished or not, with its folder.

    Raises UserError for a stage that began with other options, and for a stage that is no longer in the configuration.
    """
    runs = stage_runs(config)
    for run in runs:
        check_folder(run)
    begun = {path.parent for path in (config.out / STAGES).glob(f"*/{CONFIG_NAME}")}
    if begun - {run.out for run in runs}:
        raise holds_another(config.out, [STAGES])


def check_products(config: TrainConfig) -> None:
    """Compare the inputs of a finished run, in every stage, with the present ones, as a resume would.

    Raises UserError for other shards, tables of labels and initial weights. Missing inputs cannot be compared.
    """
    for run in stage_runs(config):
        product = present(run.out / FINAL)
        changed = "" if product is None or run.other_shards else _changed(run, read_meta(product))
        if changed:
            raise UserError(
                f"{config.out}: finished, but {changed} changed since; remove that folder to train it again, choose "
                "another --out, or keep it with other_shards: true"
            )


def _changed(run: TrainConfig, trained: Mapping[str, Any]) -> str:
    """Inputs of a run that have changed, according to the record next to its weights; empty if none."""
    try:
        fingerprint = read_manifest(run.shards).fingerprint
    except UserError:
        return ""
    if trained.get("shards") != fingerprint:
        return run.shards
    if initial_changed(run.model.weights, trained):
        return run.model.weights
    tables = [*run.filters.predictions, *([] if run.overlay is None else [run.overlay.file])]
    if not tables or not all(table.exists() for table in tables):
        return ""
    with closing(open_run_data(run)) as data:
        return "" if trained.get("labels") == data.labels.digest else " or ".join(map(str, tables))


def check_networks(config: TrainConfig) -> None:
    """Raise UserError for a network that cannot be built or cannot be trained on the canvas; nothing is written."""
    check_name(config.model.name)
    if any(run.model.weights == config.model.weights for run in open_stages(config)):
        check_weights(config.model)
    num_ranks = launched_ranks()
    if config.pass_rows is not None:
        config.batching.check_pass_rows(config.pass_rows, num_ranks)
    check_fit(config.model, config.group_size, (config.canvas.height, config.canvas.width), num_ranks)
