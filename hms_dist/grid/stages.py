"""`hms-dist stages`: compare the training stages of runs fold by fold, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from hms_dist.core.errors import UserError
from hms_dist.grid.oof import assembled
from hms_dist.grid.tables import as_markdown, scores, write_table
from hms_dist.train.folder.record import STAGES
from hms_dist.train.folder.run_folder import read_config, stage_names


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Compare stages fold by fold, and over all rows: KL and the wavelet ablation's own score (seed001_cv) of each.

    Runs with stages contain their earlier ones; separate runs of two stages are given as `first` and `runs`.
    """

    runs: tuple[Path, ...]
    """Finished runs of the last stage, one of each fold."""
    out: Path
    """Name of the table: OUT.md and OUT.csv are written."""
    first: tuple[Path, ...] = ()
    """Finished runs of the first stage, one of each fold. Empty: the runs contain their stages."""
    shards: str | None = None
    """Folder or URL of the shard set, if it has moved. None: from the runs' configuration."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError("runs: name the run folders, one of each fold")
        if self.out.suffix in (".csv", ".md"):
            raise ValueError(
                f"out: {self.out.stem}.md and {self.out.stem}.csv are written; leave {self.out.suffix} out"
            )


def run(command: Stages) -> None:
    """Run the command `stages`. Raises UserError for runs without stages, and as `assembled`."""
    if command.first:
        stages = {"stage_1": list(command.first), "stage_2": list(command.runs)}
    else:
        stages = stages_within(command.runs)
    table = compared(stages, command.shards)
    write_table(command.out, table)
    print(as_markdown(table), end="")


def stages_within(runs: Sequence[Path]) -> dict[str, list[Path]]:
    """Folders of each stage of runs that have stages, by stage name, in order. Raises UserError if they have none."""
    names = [_stage_names(run) for run in runs]
    for run, found in zip(runs, names, strict=True):
        if found != names[0]:
            raise UserError(f"{run}: its stages are {', '.join(found)}, those of {runs[0]} {', '.join(names[0])}")
    *earlier, last = names[0]
    return {**{name: [run / STAGES / name for run in runs] for name in earlier}, last: list(runs)}


def compared(stages: dict[str, list[Path]], shards: str | None = None) -> pd.DataFrame:
    """Table with one row per fold, then one over all rows. Columns: fold, rows, <stage> kl of each, <stage> seed001_cv
    of each."""
    rows: dict[str, dict[str, float]] = {}
    sizes: dict[str, int] = {}
    for stage, runs in stages.items():
        held_out = assembled(runs, shards)
        table, index = held_out.table, held_out.index
        folds = index.folds(read_config(runs[0]).num_folds)
        groups = {str(fold): table[folds == fold] for fold in np.unique(folds)} | {"overall": table}
        for fold, part in groups.items():
            found = {f"{stage} {name}": value for name, value in scores(part, index).items()}
            rows.setdefault(fold, {}).update(found)
            sizes[fold] = len(part)
    names = [name.partition(" ")[2] for name in next(iter(rows.values()))]
    order = [f"{stage} {name}" for name in dict.fromkeys(names) for stage in stages]
    return pd.DataFrame([{"fold": fold, "rows": sizes[fold], **{n: rows[fold][n] for n in order}} for fold in rows])


def _stage_names(run: Path) -> list[str]:
    names = stage_names(run)
    if not names:
        raise UserError(f"{run}: has no stages; give the runs of the first stage as --first")
    return names
