"""TensorBoard and Weights & Biases in addition to metrics.jsonl, through accelerate's trackers."""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_dist.core.errors import UserError

if TYPE_CHECKING:  # reading a run's record does not need accelerate
    from accelerate import Accelerator

PROJECT = "hms_dist"
TRACKERS_NAME = "trackers"
"""Folder in the run folder for the trackers' files."""


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError naming a tracker whose package is not installed."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"trackers: {name} is not installed; pip install 'hms-dist[trackers]', or leave it out")


def start_trackers(accelerator: "Accelerator", names: Sequence[str], out: Path, options: Mapping[str, Any]) -> None:
    """Start tracking the run in folder `out`; `options` is its resolved, nested configuration.

    Weights & Biases keeps its files in the run folder and stays offline unless WANDB_MODE is set; `wandb sync` uploads
    them later. Raises UserError if a tracker cannot start.
    """
    if not names:
        return
    os.environ.setdefault("WANDB_MODE", "offline")
    folder = out / TRACKERS_NAME
    folder.mkdir(parents=True, exist_ok=True)
    own = {"wandb": {"name": out.name, "dir": str(folder)}}
    try:
        accelerator.init_trackers(PROJECT, config=flat(options), init_kwargs=own)
    except Exception as error:  # each tracker raises its own exceptions
        accelerator.trackers.clear()  # trackers that started are not ended at the end of the run
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"trackers: {' or '.join(names)} cannot start ({reason}); set WANDB_MODE=offline or log in, or leave it out"
        ) from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Flatten nested options to `group.name: value`, with lists and None as text, which every tracker accepts."""
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
