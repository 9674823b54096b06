"""Label overlay: targets that replace the shares of the votes, such as pseudo-labels (the 16th place's stage 2)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.row_tables import read_row_table


@dataclass(frozen=True, kw_only=True)
class OverlayConfig:
    """Targets from a table for training rows with few votes. Validation always uses the votes."""

    file: Path
    """Parquet table: key and a probability per class, as predictions.parquet."""
    max_votes: int | None = None
    """Training rows with at most this many votes take their targets from the table (the 16th place: 7); the table's
    other rows are ignored. None: all training rows; for independent yes/no classes, those with an unknown
    one."""
    missing: Literal["refuse", "drop", "votes"] = "refuse"
    """Such rows that the table lacks: raise an error, drop them from training, or use their votes."""

    made_by_models: bool = True
    """True: a run with a validation fold accepts only tables that record their models, none of which has seen the fold.
    False: a table without models (labels by people or rules) is accepted too."""

    def __post_init__(self) -> None:
        if self.max_votes is not None and self.max_votes < 1:
            raise ValueError(f"overlay.max_votes: expected at least 1 or null, found {self.max_votes}")


@dataclass(frozen=True, kw_only=True)
class Overlaid:
    """Result of an overlay."""

    file: Path
    num_replaced: int
    num_missing: int
    missing: str
    num_rows: int

    def log(self) -> None:
        """Log one line."""
        rest = f"; {self.num_missing} that it lacks: {self.missing}" if self.num_missing else ""
        LOG.info("targets of %d of %d training rows from %s%s", self.num_replaced, self.num_rows, self.file, rest)


def overlay_targets(index: Index, rows: Rows, overlay: OverlayConfig) -> tuple[NDArray[np.float64], Rows, Overlaid]:
    """Return the targets [samples, classes] of the whole shard set, the remaining training rows, and the counts.

    All targets except the replaced ones are the shares of the votes. Raises UserError, with counts, for keys that are
    not in the shard set and, unless `missing` allows them, for rows that the table lacks.
    """
    table = read_row_table([overlay.file], index)
    meant = rows if overlay.max_votes is None else rows[index.num_voters[rows] <= overlay.max_votes]
    if index.dataset.target == "yes_no":
        meant = rows[np.isnan(index.targets[rows]).any(axis=1)]
    found = table.probabilities_of(meant)
    absent = np.isnan(found).any(axis=1)
    if absent.any() and overlay.missing == "refuse":
        key = index.frame["key"].iloc[meant[absent.argmax()]]
        few = "" if overlay.max_votes is None else f" with at most {overlay.max_votes} votes"
        bound = "set overlay.max_votes, " if overlay.max_votes is None else ""
        raise UserError(
            f"{overlay.file}: lacks {absent.sum()} of {len(meant)} training rows{few}, like {key}; predict them, "
            f"{bound}or set overlay.missing to drop or votes"
        )
    targets = index.targets.copy()
    targets[meant[~absent]] = found[~absent]
    left = np.setdiff1d(rows, meant[absent]) if overlay.missing == "drop" else rows
    done = Overlaid(
        file=overlay.file, num_replaced=int((~absent).sum()), num_missing=int(absent.sum()),
        missing=overlay.missing, num_rows=len(rows),
    )  # fmt: skip
    return targets, left, done
