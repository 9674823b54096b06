"""`hms-dist status RUNS`: show the state of every run below a folder, with dead ones marked.

Only reads files of the runs, so it works while they run, from any node, and for runs of other users.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hms_dist.config.safe_yaml import read_record
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_object
from hms_dist.core.logging import LOG
from hms_dist.jobs.lease import age_s, is_held, job_of, read_owner
from hms_dist.results.metric_kinds import KlMetric, LogLossMetric, deciding_values
from hms_dist.train.folder.owner import LEASE_NAME
from hms_dist.train.folder.record import (
    CONFIG_NAME,
    ENVIRONMENT_NAME,
    LOG_NAME,
    STAGES,
    STAGES_CONFIG_NAME,
    STATUS_NAME,
    read_metrics,
)

DEAD = "DEAD"
"""Recorded as running, but its lease is missing or expired."""
DAMAGED = "DAMAGED"
"""Its configuration cannot be read, so it cannot be resumed."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """Show the state of the runs below a folder: `hms-dist status RUNS`."""

    runs: Path
    """A run folder, or any folder above run folders."""
    json: bool = False
    """Print JSON, one object per run, instead of a table."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """State of one run."""

    run: str
    """Its folder."""
    state: str
    """starting, running, stopped, interrupted, finished, refused, failed, DEAD or DAMAGED."""
    stage: str
    """Current stage; empty for a run without stages. Epochs, steps and KL are those of this stage."""
    epoch: int | None
    """Epoch of the last recorded step, from 1; None before the first."""
    epochs: int | None
    """Epochs of the run; None as long as it may still be rejected."""
    step: int | None
    """Recorded optimiser steps; None before the first."""
    best_kl: float | None
    """Best validation KL so far; None for independent yes/no classes."""
    best_log_loss: float | None
    """Best validation log loss so far; None unless the classes are independent."""
    silent_s: float | None
    """Seconds since its last heartbeat; None: it has no lease."""
    job: str
    """Slurm id, with the attempt after a dot: 17_3.1; empty outside of a batch job."""
    message: str
    """Recorded message of how it ended; for a damaged run, the faulty file."""


def run(command: Status) -> None:
    """Run the command `status`. Raises UserError if there is no run below the folder."""
    if not command.runs.is_dir():
        found = "is a file" if command.runs.exists() else "no such folder"
        raise UserError(f"{command.runs}: {found}; expected a run folder, or one above run folders")
    states = [look(folder) for folder in find_runs(command.runs)]
    if not states:
        raise UserError(f"{command.runs}: no runs here, expected folders with {CONFIG_NAME}; check the folder")
    if command.json:
        sys.stdout.write("".join(json.dumps(asdict(state)) + "\n" for state in states))
        return
    sys.stdout.write(table(states, command.runs))
    for state in states:
        if state.state == DAMAGED:
            LOG.warning("%s", state.message)


def find_runs(folder: Path) -> Iterator[Path]:
    """Run folders at and below `folder`, sorted."""
    for here, below, files in os.walk(folder, onerror=_warn_hidden):
        below.sort()
        if LOG_NAME in files or (CONFIG_NAME in files and {STATUS_NAME, LEASE_NAME} & set(files)):
            below.clear()
            yield Path(here)


def _warn_hidden(error: OSError) -> None:
    LOG.warning("%s: cannot be listed (%s); runs below it are not shown", error.filename, error.strerror)


def look(folder: Path) -> RunStatus:
    """Read the state of a run folder; a damaged one does not prevent reading the others."""
    try:
        return _look(folder)
    except OSError as error:  # a pipe, a folder or an unreadable file in place of one of its files
        damage = f"{error.filename or folder}: {error.strerror or error}; the run folder is damaged"
    return RunStatus(
        run=str(folder), state=DAMAGED, stage="", epoch=None, epochs=None, step=None, best_kl=None, best_log_loss=None,
        silent_s=None, job="", message=damage,
    )  # fmt: skip


def _look(folder: Path) -> RunStatus:
    status, variables = read_object(folder / STATUS_NAME), read_object(folder / ENVIRONMENT_NAME).get("slurm")
    variables = variables if isinstance(variables, dict) else {}
    at, stage, damage = folder, "", ""
    if (folder / STATUS_NAME).exists() and not isinstance(status.get("state"), str):
        damage = f"{folder / STATUS_NAME}: has no state; the file is damaged"
    epochs: int | None = None
    try:
        at, stage = _stage_of(folder)
        epochs = _epochs(at / CONFIG_NAME)
    except UserError as error:
        damage = damage or str(error)
    lines = read_metrics(at)
    last: dict[str, Any] = lines[-1] if lines else {}
    owner = read_owner(folder / LEASE_NAME)
    signs = [*(folder / name for name in (LEASE_NAME, STATUS_NAME, CONFIG_NAME)), at / STATUS_NAME]
    ages = [age for sign in signs if (age := age_s(sign)) is not None]
    job, attempt = (owner.job, owner.attempt) if owner else (job_of(variables), variables.get("SLURM_RESTART_COUNT", 0))
    return RunStatus(
        run=str(folder),
        state=DAMAGED if damage else _state(status.get("state"), is_held=is_held(folder / LEASE_NAME)),
        stage=stage,
        epoch=last["epoch"] + 1 if last else None,
        epochs=epochs,
        step=last.get("step"),
        best_kl=min(deciding_values(lines, KlMetric.monitor), default=None),
        best_log_loss=min(deciding_values(lines, LogLossMetric.monitor), default=None),
        silent_s=round(max(min(ages), 0.0), 1) if ages else None,
        job=f"{job}.{attempt}" if job else "",
        message=damage or str(status.get("message") or ""),
    )


def table(states: Sequence[RunStatus], above: Path) -> str:
    """Format a table with one line per run, then the number of runs in each state."""
    header = "best KL" if all(state.best_log_loss is None for state in states) else "best KL or log loss"
    rows = [["run", "state", "epoch", "step", header, "last sign", "job", "stage"]]
    for state in states:
        rows.append(
            [
                os.path.relpath(state.run, above),
                state.state,
                "-" if state.epoch is None else f"{state.epoch}/{state.epochs or '?'}",
                "-" if state.step is None else str(state.step),
                next((f"{best:.4f}" for best in (state.best_kl, state.best_log_loss) if best is not None), "-"),
                _ago(state.silent_s),
                state.job or "-",
                state.stage or "-",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    counts = ", ".join(f"{number} {name}" for name, number in sorted(Counter(state.state for state in states).items()))
    return "\n".join([*lines, "", f"{len(states)} runs: {counts}"]) + "\n"


def _stage_of(folder: Path) -> tuple[Path, str]:
    """Folder and name of the current stage of a run; its own folder and no name without stages.

    Raises UserError if its list of stages cannot be read.
    """
    path = folder / STAGES_CONFIG_NAME
    if not path.is_file():
        return folder, ""
    try:
        *earlier, last = [stage["name"] for stage in read_record(path)["stages"]]
        if not all(re.fullmatch(r"[\w-]+", name) for name in (*earlier, last)):
            raise ValueError("a stage whose name cannot name a folder")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: expected a run with stages; the file is damaged") from error
    folders = {name: folder / STAGES / name for name in earlier} | {last: folder}
    begun = [name for name, out in folders.items() if (out / CONFIG_NAME).is_file()]
    name = begun[-1] if begun else next(iter(folders))
    return folders[name], name


def _epochs(path: Path) -> int | None:
    """Epochs in a run's configuration; None if there is none yet. Raises UserError if it cannot be read."""
    if not path.is_file():
        return None
    found = read_record(path)
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected options, found {repr(found)[:60]}; the file is damaged")
    epochs = found.get("epochs")
    return epochs if isinstance(epochs, int) else None


def _state(recorded: str | None, *, is_held: bool) -> str:
    """State in status.json, corrected by the lease, which shows whether the owner is alive."""
    if recorded == "finished":
        return recorded
    if is_held:
        return "running" if recorded == "running" else "starting"
    return DEAD if recorded in (None, "running") else recorded


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
