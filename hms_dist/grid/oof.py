"""`hms-dist oof`: join the held-out predictions of all folds into one table, each row by a model that never saw it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.datasets import Dataset
from hms_dist.labels.table import Ints
from hms_dist.results.lineage import Source, check_out_of_fold, named_sources
from hms_dist.results.predictions import check_no_input, check_rows, read_predictions, write_predictions
from hms_dist.shards.index import Index, open_set
from hms_dist.train.folder.checkpoint import read_meta
from hms_dist.train.folder.record import PREDICTIONS_NAME, is_finished
from hms_dist.train.folder.run_folder import BEST, read_config
from hms_dist.train.folder.whole_folder import present
from hms_dist.train.settings import TrainConfig


@dataclass(frozen=True, kw_only=True)
class Oof:
    """Join the validation predictions of the runs of all folds into one table.

    Every row of the shard set must appear exactly once, predicted by a run that held out its fold.
    """

    runs: tuple[Path, ...]
    """Run folders, one of each fold, of one recipe and one shard set."""
    out: Path
    """Table to write, .parquet."""
    shards: str | None = None
    """Folder or URL of the shard set, if it has moved. None: from the runs' configuration."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: name the run folders, one of each fold")
        if self.out.suffix != ".parquet":
            raise ValueError(f"out: expected a name ending in .parquet, found {self.out.name}")


def run(command: Oof) -> None:
    """Run the command `oof`. Raises UserError as `assembled`."""
    check_no_input(command.out, [run / PREDICTIONS_NAME for run in command.runs])
    held_out = assembled(command.runs, command.shards)
    check_rows(command.out, held_out.index.ids("eeg_id"), held_out.index.dataset)
    write_predictions(command.out, held_out.table, held_out.sources, held_out.index.dataset)
    LOG.info("%d rows, each predicted once by one of %d runs: %s", len(held_out.index), len(command.runs), command.out)


@dataclass(frozen=True)
class HeldOut:
    """Held-out predictions of a shard set."""

    table: pd.DataFrame
    """Prediction table of every row, in index order."""
    index: Index
    sources: tuple[Source, ...]
    """Models of the table, each with its fold."""


def assembled(runs: Sequence[Path], shards: str | None = None) -> HeldOut:
    """Join held-out predictions of every row.

    `shards`: present location of the set. None: from the runs' configuration. Raises UserError naming a run that is not
    finished, is of another shard set or split, has other rows than its fold, or has seen their patients in any way;
    also for missing and duplicate folds.
    """
    configs = [_config(run) for run in runs]
    manifest, index = open_set(shards or configs[0].shards)
    num_folds, folds = configs[0].num_folds, index.folds(configs[0].num_folds)
    run_of: dict[int, Path] = {}
    parts: list[pd.DataFrame] = []
    sources: list[Source] = []
    for run, config in zip(runs, configs, strict=True):
        if (config.model.name, config.canvas) != (configs[0].model.name, configs[0].canvas):
            LOG.warning("%s: another model or canvas than that of %s; is it of the same recipe?", run, runs[0])
        fold = _fold(run, config, num_folds)
        if fold in run_of:
            raise UserError(f"{run}: holds out fold {fold}, as {run_of[fold]} does; each row needs one prediction")
        run_of[fold] = run
        if shards_of(run) != manifest.fingerprint:
            raise UserError(f"{run}: was trained on another shard set; give the one of all runs as --shards")
        parts.append(_held_out(run, index.frame["key"][folds == fold], index.dataset))
        sources += _unseen(run, index.ids("patient_id")[folds == fold], folds[folds == fold])
    missing = sorted(set(range(num_folds)) - set(run_of))
    if missing:
        rows = int(pd.Series(folds).isin(missing).sum())
        raise UserError(
            f"--runs: no run holds out fold {' or '.join(map(str, missing))} of {num_folds}, so {rows} rows have no "
            "prediction; train those folds and name their runs"
        )
    table = pd.concat(parts).set_index("key").loc[index.frame["key"]].reset_index()
    return HeldOut(table, index, tuple(sources))


def _config(run: Path) -> TrainConfig:
    if not is_finished(run):
        raise UserError(f"{run}: not a finished run; finish it, or leave it out")
    return read_config(run)


def _fold(run: Path, config: TrainConfig, num_folds: int) -> int:
    if config.fold == "none":
        raise UserError(f"{run}: trained on all rows (fold none), so it held none out; train it with a fold")
    if config.num_folds != num_folds:
        raise UserError(
            f"{run}: holds out a fold of {config.num_folds}, the first run one of {num_folds}; take runs of one split"
        )
    return config.fold


def shards_of(run: Path) -> str | None:
    """Fingerprint of the shard set that a run was trained on; None if it is not recorded."""
    meta = present(run / BEST)
    return read_meta(meta).get("shards") if meta is not None else None


def _held_out(run: Path, keys: pd.Series, dataset: Dataset) -> pd.DataFrame:
    """Read the predictions of a run, which must cover exactly the rows `keys`."""
    table = read_predictions(run / PREDICTIONS_NAME, dataset)
    check_held_out(run, table["key"], keys)
    return table


def check_held_out(run: Path, found: pd.Series, keys: pd.Series) -> None:
    """Raise UserError if the keys `found` in a run's predictions are not those of its fold, `keys`."""
    lacking, beyond = set(keys) - set(found), set(found) - set(keys)
    if lacking or beyond:
        raise UserError(
            f"{run / PREDICTIONS_NAME}: {len(lacking)} rows of its fold are missing and {len(beyond)} are of other "
            "folds; the table was changed; train the run again"
        )


def _unseen(run: Path, patients: Ints, folds: Ints) -> tuple[Source, ...]:
    """Models behind a run's predictions. Raises UserError if one has seen `patients`, directly or through other
    models."""
    path = run / PREDICTIONS_NAME
    sources = named_sources(path, "so they may have trained on its rows")
    check_out_of_fold(path, sources, patients, folds)
    return sources
