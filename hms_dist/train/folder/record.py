"""What a run says of itself in its folder: metrics.jsonl, status.json, environment.json."""

import json
import re
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

if TYPE_CHECKING:  # reading a run's record takes no accelerate
    from accelerate import Accelerator

CONFIG_NAME = "config.yaml"
STAGES_CONFIG_NAME = "stages.yaml"
"""The whole configuration of a run with stages; config.yaml is its last stage's."""
STAGES = "stages"
"""Folder of the stages before the last, in the run folder."""
STATUS_NAME = "status.json"
FAULT_NAME = ".fault"
"""Exists from the moment that a rank knows why the run fails: what ranks that lost a peer then say is hearsay. Holds
what the run's status then is."""
METRICS_NAME = "metrics.jsonl"
ENVIRONMENT_NAME = "environment.json"
LOG_NAME = "train.log"
PREDICTIONS_NAME = "predictions.parquet"
CANVAS_NAME = "canvas.yaml"
RECIPE_NAME = "render.yaml"
STATISTICS_NAME = "statistics.json"
GLOO_LOST = re.compile(r"gloo.*(connection|read error|write error|broken pipe|time[d ]*out)", re.IGNORECASE)


def write_status(folder: Path, state: str, *, exit_code: int | None = None, **facts: Any) -> None:
    """Write status.json: running, stopped, interrupted, finished, refused or failed, with whatever else is known.

    Launchers swallow exit codes, so scripts read this file instead.
    """
    if state == "running" and (folder / FAULT_NAME).exists():
        return
    write_json(folder / STATUS_NAME, {"state": state, "exit_code": exit_code, "time": time.time(), **facts})
    if state == "running":  # if a rank failed meanwhile, that was written over its words, or they come now
        with suppress(OSError, ValueError):
            write_json(folder / STATUS_NAME, read_json(folder / FAULT_NAME))


def is_finished(folder: Path) -> bool:
    """Whether the run of this folder says that it is done."""
    return _state(folder) == "finished"


def write_last_words(folder: Path, ownership: Ownership, message: str) -> None:
    """Write why the main rank is ended where it stands, unless it has said how the run ended, or owns it no more."""
    if _state(folder) == "running" and not ownership.is_lost():
        write_status(folder, "interrupted", exit_code=1, message=message)


def _state(folder: Path) -> str | None:
    return read_object(folder / STATUS_NAME).get("state")


@contextmanager
def reported(folder: Path, rank: int) -> Iterator[None]:
    """Write how a run ended into its status.json when it ends by an exception, which passes on.

    Whichever rank fails of its own first says so, and leaves the fault file; what the others then say, who only lose
    their connection, is not written over it. A failure of a rank other than the main one carries the rank's number.
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
        said: dict[str, Any] = {"exit_code": code, "message": f"{where}{error}"}
        if _is_first_fault(folder, state, said) or rank == 0:
            write_status(folder, state, **said)
        raise type(error)(f"{where}{error}") from error
    except BaseException as error:
        message = where + traceback.format_exception_only(error)[-1].strip()
        LOG.error("%s", message)
        said = {"exit_code": 1, "message": message}
        if is_lost_peer(error):
            is_news = rank == 0 and not (folder / FAULT_NAME).exists()
        else:
            is_news = _is_first_fault(folder, "failed", said)
        if is_news:
            write_status(folder, "failed", **said)
        raise


def is_lost_peer(error: BaseException) -> bool:
    """Whether a rank fails because another one is gone or stuck: the process group says so, not this rank's own work.

    torch has a type of its own for NCCL and for the store; gloo raises a plain RuntimeError.
    """
    if any(kind.__name__ == "DistError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and GLOO_LOST.search(str(error)) is not None


def _is_first_fault(folder: Path, state: str, said: dict[str, Any]) -> bool:
    """Leave the fault file; True for the one rank that is the first to."""
    try:
        with (folder / FAULT_NAME).open("x") as file:
            json.dump({"state": state, "time": time.time(), **said}, file)
    except OSError:
        return False
    return True


class MetricsLog:
    """metrics.jsonl: one JSON object a line, on disk as soon as it is known; its numbers go to the trackers too."""

    def __init__(
        self, folder: Path, keep_steps: int, accelerator: "Accelerator", prefix: str = "", *, evaluated: bool = True
    ) -> None:
        """Continue the log of a run whose first `keep_steps` steps stand; later lines are dropped.

        `evaluated`: False if an evaluation after the last of them is still to be done; its line is dropped too.
        `prefix` tells a stage's numbers from another's in the trackers.
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
    """Lines of a run's metrics.jsonl up to the first that is none: a last line cut short by a kill is left out."""
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
    """Whether an object of metrics.jsonl is one that a run writes."""
    numbers = [value for name, value in values.items() if name in ("loss", "lr") or name.startswith("val_kl")]
    table = values.get("val_confusion", [])
    rows: list[Any] = table if isinstance(table, list) else [0]
    return (
        all(type(values.get(name)) is int and values[name] >= 0 for name in ("epoch", "step"))
        and all(isinstance(value, int | float) for value in numbers)
        and all(isinstance(row, list) and len(row) == len(rows) for row in rows)
        and all(type(count) is int for row in rows for count in row)
    )
