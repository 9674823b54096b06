"""The run folder: the run that it belongs to, and the state that a stopped run left in it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hms_dist.config.load import from_stored, save, to_dict
from hms_dist.config.safe_yaml import read_record
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_bytes
from hms_dist.train.folder.checkpoint import LATEST_NAME, Checkpoint, has_any, load_latest
from hms_dist.train.folder.record import CONFIG_NAME, FAULT_NAME, STAGES, STAGES_CONFIG_NAME
from hms_dist.train.folder.stop import STOP_NAME
from hms_dist.train.folder.whole_folder import present
from hms_dist.train.settings import TrainConfig

CHECKPOINTS = "checkpoints"
BEST, FINAL = "best", "final"
NEUTRAL = (
    "shards",
    "out",
    "resume",
    "other_shards",
    "trackers",
    "pass_rows",
    "compile_mode",
    "reader_threads",
    "storage",
    "on_error",
    "max_replaced",
    "log_every",
    "checkpoint_every",
    "keep_checkpoints",
    "timeout_s",
)
"""Options that do not change the result; a resume may change them."""


def check_folder(config: TrainConfig) -> None:
    """Raise UserError if the run folder holds a run of another configuration, or any run with `resume: never`.

    A run that was rejected before it began does not occupy its folder.
    """
    path = config.out / CONFIG_NAME
    if config.out.exists() and not config.out.is_dir():
        raise UserError(f"{config.out}: expected a folder for the run, found a file; choose another --out")
    if path.exists():
        if config.resume == "never":
            raise UserError(
                f"{config.out}: holds a run already; choose another --out, or continue it with --resume auto"
            )
        before, now = compared(read_config(config.out)), compared(config)
        different = [name for name in now if before.get(name) != now[name]]
        if different:
            raise holds_another(config.out, different)


def holds_another(folder: Path, different: Sequence[str]) -> UserError:
    """Build the error for a run folder that holds a run with other values of these options."""
    return UserError(
        f"{folder}: holds a run whose {' and '.join(different)} differ; choose another --out, or give the options that "
        "the run began with"
    )


def clear_folder(config: TrainConfig) -> None:
    """Create the run folder and remove an earlier attempt's signals to the ranks; record the stages, if any."""
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / FAULT_NAME).unlink(missing_ok=True)
    (config.out / STOP_NAME).unlink(missing_ok=True)
    for left in config.out.glob(".*.tmp"):  # left by an attempt that was killed while writing
        left.unlink(missing_ok=True)
    if config.stages:
        save(config, config.out / STAGES_CONFIG_NAME)
    else:
        (config.out / STAGES_CONFIG_NAME).unlink(missing_ok=True)  # of a rejected run


def begin_folder(config: TrainConfig) -> None:
    """Write config.yaml into the folder of a run or stage, which then belongs to it."""
    config.out.mkdir(parents=True, exist_ok=True)
    save(config, config.out / CONFIG_NAME)


def find_checkpoint(config: TrainConfig) -> Checkpoint | None:
    """Find the newest intact checkpoint of the run folder; None if the run has not saved one yet."""
    folder = config.out / CHECKPOINTS
    return load_latest(folder) if has_any(folder) else None


def stored_weights(run: Path, checkpoint: str | None = None) -> Path:
    """Return the weights folder of a run: best, final, latest or step-<8 digits>; None: best, or final for a run
    without a fold.

    Raises UserError if it does not exist.
    """
    if checkpoint is not None:
        return _named_weights(run, checkpoint)
    if present(run / BEST) is not None:
        return run / BEST
    if present(run / FINAL) is None:
        missing = f"{run}: no {BEST}/ or {FINAL}/ weights"
        raise UserError(f"{missing}; is this a run folder, and has the run finished an epoch?")
    if read_config(run).fold != "none":
        raise UserError(f"{run}: its {BEST}/ weights are gone; --checkpoint {FINAL} takes those of the last epoch")
    return run / FINAL


def _named_weights(run: Path, name: str) -> Path:
    latest = run / CHECKPOINTS / LATEST_NAME
    step = read_bytes(latest, 100).decode(errors="replace").strip() if name == "latest" and latest.is_file() else name
    if not re.fullmatch(r"[\w-]+", step):  # neither the given name nor `latest` may lead out of the folder
        raise UserError(f"{run}: no weights '{step}'; expected best, final, latest or step-<8 digits>")
    folder = run / name if name in (BEST, FINAL) else run / CHECKPOINTS / step
    if present(folder) is None:
        there = [path.name for path in (run / BEST, run / FINAL) if present(path) is not None]
        there += sorted(path.name for path in (run / CHECKPOINTS).glob("step-*"))
        raise UserError(f"{run}: no weights '{name}'; it has: {', '.join(there) or 'none yet'}; choose one of these")
    return folder


def compared(config: TrainConfig) -> dict[str, Any]:
    """Options that a resume may not change; weights of an earlier stage by their place in the run, wherever it is
    now."""
    values = {name: value for name, value in to_dict(config).items() if name not in NEUTRAL}
    run = config.out.parent.parent if config.out.parent.name == STAGES else config.out
    place = Path(os.path.relpath(config.model.weights, run))
    if place.parts[:1] == (STAGES,):
        values["model"]["weights"] = str(place)
    return values


def read_config(run: Path) -> TrainConfig:
    """Read the configuration of a run folder."""
    return _read(run / CONFIG_NAME)


def stage_names(run: Path) -> list[str]:
    """Names of the stages of a run folder, in order; none for a run without stages."""
    path = run / STAGES_CONFIG_NAME
    return [stage.name for stage in _read(path).stages] if path.is_file() else []


def _read(path: Path) -> TrainConfig:
    return from_stored(TrainConfig, read_record(path), str(path))
