"""TensorBoard and Weights & Biases beside metrics.jsonl, through accelerate's trackers."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_dist.core.errors import UserError

if TYPE_CHECKING:  # reading a run's record takes no accelerate
    from accelerate import Accelerator

PROJECT = "hms_dist"
TRACKERS_NAME = "trackers"
"""Folder in the run folder that trackers write into."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises UserError naming a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"trackers: {name} is not installed; pip install 'hms-dist[trackers]', or leave it out")


def start_trackers(accelerator: "Accelerator", names: Sequence[str], out: Path, options: Mapping[str, Any]) -> None:
    """Begin to track the run in folder `out`; `options` is its resolved configuration, nested.

    Weights & Biases keeps its files in the run folder and stays off the network unless WANDB_MODE says otherwise;
    `wandb sync` sends them later. Raises UserError if one cannot start.
    """
    if not names:
        return
    os.environ.setdefault("WANDB_MODE", "offline")
    folder = out / TRACKERS_NAME
    folder.mkdir(parents=True, exist_ok=True)
    own = {"wandb": {"name": out.name, "dir": str(folder)}}
    try:
        accelerator.init_trackers(PROJECT, config=flat(options), init_kwargs=own)
    except Exception as error:  # each tracker has its own
        accelerator.trackers.clear()  # none that is half started is ended at the end of the run
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"trackers: {' or '.join(names)} cannot start ({reason}); set WANDB_MODE=offline or log in, or leave it out"
        ) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested options as `group.name: value`, lists and None as words: what every tracker takes."""
    found: dict[str, str | int | float | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return found


def scalars(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among `values`."""
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}
