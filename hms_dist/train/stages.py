"""Stages within one run: train on all rows, then on some; on the votes, then on pseudo-labels; one config, one command.

Each stage is a run with a folder of its own, RUN/stages/<name>/; the last one is RUN itself, so what comes after a run
(predict, score, report) need not know of stages. They share the launch, the process group and the claim.
"""

from dataclasses import replace
from pathlib import Path

from hms_dist.train.folder.checkpoint import product_file
from hms_dist.train.folder.record import is_finished
from hms_dist.train.folder.run_folder import BEST, FINAL
from hms_dist.train.settings import TrainConfig

STAGES = "stages"
"""Folder of the stages before the last, in the run folder."""


def stage_runs(config: TrainConfig) -> list[TrainConfig]:
    """The runs that a configuration asks for, in order, each without stages of its own; itself if it has none.

    What a stage leaves open is the run's. A stage that starts from an earlier one has a path in that one's folder as
    `model.weights`.
    """
    if not config.stages:
        return [config]
    runs: list[TrainConfig] = []
    folders: dict[str, Path] = {}
    for stage in config.stages:
        last = stage is config.stages[-1]
        out = config.out if last else config.out / STAGES / stage.name
        options = {name: value for name in stage.REPLACED if (value := getattr(stage, name)) is not None}
        model = config.model
        if stage.init != "pretrained":
            kind, _, name = stage.init.partition(":")
            folder = folders[name] / (BEST if kind == "best" else FINAL)
            model = replace(model, weights=str(product_file(folder, averaged=config.ema.decay is not None)))
        runs.append(replace(config, stages=(), out=out, model=model, **options))
        folders[stage.name] = out
    return runs


def open_stages(config: TrainConfig) -> list[TrainConfig]:
    """Those runs of `stage_runs` that are not finished; the last one always."""
    runs = stage_runs(config)
    return [run for run in runs[:-1] if not is_finished(run.out)] + runs[-1:]
