"""One trial: a training run per fold, monitored after every epoch and pruned when it falls behind."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, median
from subprocess import TimeoutExpired
from typing import Any

import yaml

from hms_dist.core.errors import JobError, UserError
from hms_dist.core.files import atomic
from hms_dist.grid.launch import await_free
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.grid.run_plan import PlannedRun
from hms_dist.jobs.processes import launched
from hms_dist.results.metric_kinds import deciding_values
from hms_dist.train.folder.record import read_metrics

CONFIG_NAME = "config.yaml"
LOOK_EVERY_S = 0.5
"""Seconds between two polls of a run's metrics."""

ReportEpoch = Callable[[int, float], bool]
"""(epoch of the trial, counted over its folds from 0, and its validation KL or log loss) -> whether to continue."""


class Pruned(Exception):
    """A trial was pruned because earlier trials were better."""


@dataclass(frozen=True, kw_only=True)
class TrialRuns:
    """The runs of a trial."""

    folder: Path
    """Holds config.yaml, and a run folder and a log for each fold."""
    config: Mapping[str, Any]
    """Options of the runs, without those that `run` sets."""
    shards: str
    folds: Sequence[int]
    launch: LaunchConfig

    def train(self, report: ReportEpoch) -> float:
        """Train the unfinished runs; return the mean of the folds' best validation KLs or log losses.

        Raises Pruned when `report` returns False, JobError for a failed run, UserError for a rejected one, and Stopped
        if this process was asked to stop or another job holds a run.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic(self.folder / CONFIG_NAME, "w") as file:
            yaml.safe_dump(dict(self.config), file, sort_keys=False)
        best = []
        for place, fold in enumerate(self.folds):
            run, first = self._run(fold), place * int(self.config["epochs"])
            self._train(run, partial(_report_new, report, first, []))
            best.append(min(deciding_values(read_metrics(run.out))))
        return fmean(best)

    def _run(self, fold: int) -> PlannedRun:
        out = self.folder / f"fold-{fold}"
        words = ("--config", str(self.folder / CONFIG_NAME), "--shards", self.shards, "--out", str(out))
        return PlannedRun(self.folder.name, int(self.config["seed"]), fold, out, (*words, "--fold", str(fold)))

    def _train(self, run: PlannedRun, look: Callable[[Path], None]) -> None:
        """Start or resume a run until it is finished, and poll its folder; returns at once if it is finished."""
        if not run.finished:
            await_free(run.out)
            log = self.folder / f"{run.out.name}.log"
            with log.open("ab") as output, launched(self.launch.command(list(run.words)), output) as process:
                while process.poll() is None:
                    look(run.out)
                    with suppress(TimeoutExpired):
                        process.wait(LOOK_EVERY_S)
            if not run.finished:
                kind = UserError if process.returncode == 2 else JobError
                raise kind(f"{run.out}: {run.message or f'exit code {process.returncode}'}; its log is {log}")
        look(run.out)


def _report_new(report: ReportEpoch, first: int, seen: list[float], out: Path) -> None:
    """ReportEpoch the epochs of a run that are not in `seen`, and add them. Raises Pruned."""
    for value in deciding_values(read_metrics(out))[len(seen) :]:
        seen.append(value)
        if not report(first + len(seen) - 1, value):
            raise Pruned


def is_behind(value: float, others: Sequence[float], num_startup: int) -> bool:
    """Whether a trial's value after an epoch is above the median of earlier trials' after the same epoch.

    Always False with fewer than `num_startup` of them. Optuna's MedianPruner compares the best epoch so far, which
    would be decided by the first fold if it is easier than the second.
    """
    return len(others) >= num_startup and value > median(others)
