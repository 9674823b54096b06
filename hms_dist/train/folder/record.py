"""Records of a run in its folder: metrics.jsonl, status.json, environment.json."""

import json
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_dist.core import limits
from hms_dist.core.errors import JobError, Stopped, UserError
from hms_dist.core.files import atomic, parse_json, read_bytes, read_json, read_object, write_json
from hms_dist.core.logging import LOG
from hms_dist.train.folder.owner import Ownership, Superseded
from hms_dist.train.folder.trackers import scalars

if TYPE_CHECKING:  # reading a run's record does not need accelerate
    from accelerate import Accelerator

CONFIG_NAME = "config.yaml"
STAGES_CONFIG_NAME = "stages.yaml"
"""Configuration of a run with all its stages; config.yaml is that of the last stage."""
STAGES = "stages"
"""Folder of the stages before the last, in the run folder."""
STATUS_NAME = "status.json"
FAULT_NAME = ".fault"
"""File written by the first rank that fails with a known reason; later errors about a lost peer are secondary. Holds
the run's status."""
METRICS_NAME = "metrics.jsonl"
ENVIRONMENT_NAME = "environment.json"
LOG_NAME = "train.log"
PREDICTIONS_NAME = "predictions.parquet"
CANVAS_NAME = "canvas.yaml"
RECIPE_NAME = "render.yaml"
STATISTICS_NAME = "statistics.json"
GLOO_LOST = re.compile(r"gloo.*(connection|read error|write error|broken pipe|time[d ]*out)", re.IGNORECASE)


def write_status(folder: Path, state: str, *, exit_code: int | None = None, **facts: Any) -> None:
    """Write status.json: running, stopped, interrupted, finished, refused or failed, with further facts.

    Launchers hide exit codes, so scripts read this file instead.
    """
    if state == "running" and (folder / FAULT_NAME).exists():
        return
    write_json(folder / STATUS_NAME, {"state": state, "exit_code": exit_code, "time": time.time(), **facts})
    if state == "running":  # if a rank failed meanwhile, its status was overwritten, or is written now
        with suppress(OSError, ValueError):
            write_json(folder / STATUS_NAME, read_json(folder / FAULT_NAME))


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder is recorded as finished."""
    return _state(folder) == "finished"


def write_forced_end(folder: Path, ownership: Ownership, message: str) -> None:
    """Write why the main rank is ended at once, unless the end of the run is already recorded, or it lost ownership."""
    if _state(folder) == "running" and not ownership.is_lost():
        write_status(folder, "interrupted", exit_code=1, message=message)


def _state(folder: Path) -> str | None:
    return read_object(folder / STATUS_NAME).get("state")


@contextmanager
def reported(folder: Path, rank: int) -> Iterator[None]:
    """Write the end of a run into its status.json when an exception ends it; the exception is passed on.

    The first rank that fails for its own reason records it and leaves the fault file; the errors of the other ranks,
    which only lose their connection, do not overwrite it. A failure of a rank other than the main one has the rank's
    number.
    """
    where = f"rank {rank}: " if rank else ""
    try:
        yield
    except KeyboardInterrupt:
        LOG.info("interrupted; rerun the same command to continue")
        if rank == 0:
            write_status(folder, "interrupted", exit_code=1, message="rerun the same command to continue")
        raise
    except Superseded:
        raise
    except Stopped as error:
        LOG.info("%s", error)
        if rank == 0:
            write_status(folder, "stopped", exit_code=1, message=str(error))
        raise
    except (UserError, JobError) as error:
        state, code = ("refused", 2) if isinstance(error, UserError) else ("failed", 1)
        LOG.error("%s", error)
        status: dict[str, Any] = {"exit_code": code, "message": f"{where}{error}"}
        if _is_first_fault(folder, state, status) or rank == 0:
            write_status(folder, state, **status)
        raise type(error)(f"{where}{error}") from error
    except BaseException as error:
        message = where + traceback.format_exception_only(error)[-1].strip()
        LOG.error("%s", message)
        status = {"exit_code": 1, "message": message}
        if is_lost_peer(error):
            is_news = rank == 0 and not (folder / FAULT_NAME).exists()
        else:
            is_news = _is_first_fault(folder, "failed", status)
        if is_news:
            write_status(folder, "failed", **status)
        raise


def is_lost_peer(error: BaseException) -> bool:
    """Whether a rank fails because another one is gone or stuck, according to the process group.

    torch has an exception type for NCCL and for the store; gloo raises a plain RuntimeError.
    """
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and GLOO_LOST.search(str(error)) is not None


def _is_first_fault(folder: Path, state: str, status: dict[str, Any]) -> bool:
    """Write the fault file; True only for the first rank that does."""
    try:
        with (folder / FAULT_NAME).open("x") as file:
            json.dump({"state": state, "time": time.time(), **status}, file)
    except OSError:
        return False
    return True


class MetricsLog:
    """metrics.jsonl: one JSON object per line, written at once; its numbers are sent to the trackers too."""

    def __init__(
        self, folder: Path, keep_steps: int, accelerator: "Accelerator", prefix: str = "", *, evaluated: bool = True
    ) -> None:
        """Continue the log of a run after its first `keep_steps` steps; later lines are dropped.

        `evaluated`: False if an evaluation after the last of them is still missing; its line is dropped too. `prefix`
        distinguishes the numbers of a stage in the trackers.
        """
        self._accelerator, self._prefix = accelerator, prefix
        self._path = folder / METRICS_NAME
        kept = [line for line in read_metrics(folder) if line["step"] <= keep_steps]
        if not evaluated:
            kept = [line for line in kept if line["step"] < keep_steps or "loss" in line]
        with atomic(self._path, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in kept)

    def write(self, **values: Any) -> None:
        """Append one line."""
        with self._path.open("a") as file:
            file.write(json.dumps(values, allow_nan=False) + "\n")
        numbers = {self._prefix + name: value for name, value in scalars(values).items()}
        self._accelerator.log(numbers, step=values["step"])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Read the lines of a run's metrics.jsonl up to the first invalid one; a last line truncated by a kill is
    ignored."""
    path = folder / METRICS_NAME
    lines = read_bytes(path, limits.LOG_BYTES).splitlines() if path.exists() else []
    found: list[dict[str, Any]] = []
    for line in lines:
        try:
            values = parse_json(line)
        except ValueError:
            break
        if not isinstance(values, dict) or not _is_line(values):
            break
        found.append(values)
    return found


def _is_line(values: dict[str, Any]) -> bool:
    """Whether an object of metrics.jsonl has the form that a run writes."""
    numbers = [value for name, value in values.items() if name != "val_confusion" and not name.startswith("val_batch_")]
    table = values.get("val_confusion", [])
    rows: list[Any] = table if isinstance(table, list) else [0]
    return (
        all(type(values.get(name)) is int and values[name] >= 0 for name in ("epoch", "step"))
        and all(isinstance(value, int | float) and abs(value) <= sys.float_info.max for value in numbers)
        and all(isinstance(row, list) and len(row) == len(rows[0]) for row in rows)
        and all(type(count) is int for row in rows for count in row)
    )
