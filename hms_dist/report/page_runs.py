"""Facts of run folders, read for the page."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.files import required_object
from hms_dist.datasets import Dataset, read_dataset
from hms_dist.results.metric_kinds import Metric, metric_of
from hms_dist.train.folder.record import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    PREDICTIONS_NAME,
    STAGES,
    STATUS_NAME,
    read_metrics,
)
from hms_dist.train.folder.run_folder import read_config, stage_names
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run, or one stage of a run."""

    name: str
    """Name on the page."""
    folder: Path
    config: TrainConfig
    recipe: str | None
    """Names of the configuration files that it was launched with. None: not recorded."""
    state: str
    """State in status.json."""
    message: str | None
    """Why the run ended; None if it finished or still runs."""
    steps: tuple[dict[str, Any], ...]
    """Lines of metrics.jsonl with a loss."""
    evaluations: tuple[dict[str, Any], ...]
    """Lines of metrics.jsonl with an evaluation."""
    dataset: Dataset
    """The data set that it was trained on."""
    time_s: float | None = None
    """Time of status.json, seconds since 1970. None: not recorded."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of its software; empty: not recorded."""
    machine: str = ""
    """Its system; empty: not recorded."""

    @property
    def metric(self) -> Metric:
        """The metric of its data set."""
        return metric_of(self.dataset)

    @property
    def best(self) -> dict[str, Any] | None:
        """The first evaluation with the lowest value; None if there was none."""
        return min(self.evaluations, key=lambda line: line[self.metric.monitor], default=None)

    @property
    def predictions(self) -> Path | None:
        """Its predictions of the validation fold; None if it has written none."""
        path = self.folder / PREDICTIONS_NAME
        return path if path.is_file() else None


def read_runs(folders: Sequence[Path]) -> list[RunFacts]:
    """Read the facts of each run, its earlier stages before it. Raises UserError for anything that is not a run
    folder."""
    every = [stage for folder in folders for stage in _with_stages(folder)]
    return [_read(folder, name) for folder, name in zip(every, short_names(every), strict=True)]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that distinguish them, with the same number of parts for all."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for length in range(1, max(map(len, parts), default=1)):
        names = ["/".join(item[-length:]) for item in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(path) for path in paths]


def _with_stages(folder: Path) -> list[Path]:
    """Folders of a run's stages in order; the last stage is the run's own folder."""
    if not (folder / CONFIG_NAME).is_file():
        raise UserError(f"{folder}: not a run folder (no {CONFIG_NAME}); check --runs")
    earlier = [folder / STAGES / name for name in stage_names(folder)[:-1]]
    return [*(stage for stage in earlier if (stage / CONFIG_NAME).is_file()), folder]


def _read(folder: Path, name: str) -> RunFacts:
    status, lines, dataset = _json_of(folder / STATUS_NAME), read_metrics(folder), read_dataset(folder)
    environment = _json_of(folder / ENVIRONMENT_NAME)
    versions, time_s = environment.get("versions"), status.get("time")
    metric = metric_of(dataset)
    evaluation = {metric.monitor, "val_confusion"}
    counted = dataset.num_classes, 4  # `yes_no.confusion`
    if dataset.target == "shares":
        counted = dataset.num_classes, dataset.num_classes
        evaluation |= {*metric.monitor_names}  # else a class may be unknown in all rows
    return RunFacts(
        name=name,
        folder=folder,
        config=read_config(folder),
        recipe=_recipe(environment.get("command", [])),
        state=str(status.get("state", "unknown")),
        message=None if status.get("message") is None else str(status["message"]),
        steps=tuple(line for line in lines if "loss" in line),
        evaluations=tuple(
            line for line in lines if line.keys() >= evaluation and np.shape(line["val_confusion"]) == counted
        ),
        dataset=dataset,
        time_s=float(time_s) if isinstance(time_s, int | float) else None,
        versions={str(name): str(number) for name, number in versions.items()} if isinstance(versions, dict) else {},
        machine=str(environment.get("system", "")),
    )


def _json_of(path: Path) -> dict[str, Any]:
    """Read a JSON object; {} if the file is missing. Raises UserError if it is damaged."""
    return required_object(path, "the file is damaged") if path.is_file() else {}


def _recipe(command: Any) -> str | None:
    """Names of the files after --config in a command."""
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return None
    words = [part for word in command for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    files = [file for option, file in pairwise(words) if option == "--config"]
    return " + ".join(Path(file).stem for file in files) or None
