"""`hms-dist keys SHARDS`: list the keys of samples by class, votes, patient and fold, as a plain table."""

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError, one_of
from hms_dist.labels.table import FOLD_COUNTS
from hms_dist.results.metric_kinds import metric_of
from hms_dist.shards.index import Index, fold_column, open_set

UNKNOWN = "-"
"""Shown where a row has no value."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """List the keys of a shard set: `hms-dist keys SHARDS --classes lpd gpd --min_votes 8 --limit 20`.

    Prints a line per row: key, class with most votes (or all classes that are present), number of votes (or of known
    classes), patient, fold. Every filter given must hold.
    """

    shards: str
    """Folder of the shard set, or its URL."""
    classes: tuple[str, ...] = ()
    """Classes: rows with most votes for one of them, or where one of them is present. Empty: all."""
    min_votes: int = 0
    """Smallest number of votes."""
    max_votes: int | None = None
    """Largest number of votes. None: no limit."""
    patients: tuple[int, ...] = ()
    """patient_id of the rows. Empty: all."""
    fold: int | None = None
    """Fold of the rows, from 0. None: all."""
    num_folds: int = 5
    """Number of folds that the patients are split into, as in training."""
    limit: int | None = None
    """Most rows to list. None: all."""
    bare: bool = False
    """Print keys alone, one per line, for other commands."""

    def __post_init__(self) -> None:
        if self.num_folds not in FOLD_COUNTS:
            raise ValueError(f"num_folds: expected {FOLD_COUNTS[0]} to {FOLD_COUNTS[-1]}, found {self.num_folds}")
        if self.fold is not None and not 0 <= self.fold < self.num_folds:
            raise ValueError(f"fold: expected 0 to {self.num_folds - 1} of {self.num_folds} folds, found {self.fold}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: expected at least 1, found {self.limit}")
        if self.max_votes is not None and self.max_votes < self.min_votes:
            raise ValueError(f"max_votes: expected at least min_votes, {self.min_votes}, found {self.max_votes}")


def run(command: Keys) -> None:
    """Run the command `keys`. Raises UserError for an unknown class, and if no row fits."""
    _, index = open_set(command.shards)
    rows = listed_rows(command, index)
    if not len(rows):
        raise UserError(f"{command.shards}: none of its {len(index)} rows fits; leave out a filter")
    rows = rows[: command.limit]
    if command.bare:
        sys.stdout.write("".join(f"{key}\n" for key in index.frame["key"].iloc[rows]))
    else:
        sys.stdout.write(key_table(index, rows, command.num_folds).to_string(index=False) + "\n")


def listed_rows(command: Keys, index: Index) -> NDArray[np.int64]:
    """Rows [n] of the index that pass all filters, in its order. Raises UserError for an unknown class or patient, and
    for filters by labels on a set without."""
    fits = np.ones(len(index), bool)
    if command.classes:
        for name in command.classes:
            one_of("classes", name, index.dataset.classes)
        places = [index.dataset.classes.index(name) for name in command.classes]
        fits &= class_matrix(index)[:, places].any(axis=1)
    if command.min_votes or command.max_votes is not None:
        most = np.inf if command.max_votes is None else command.max_votes
        fits &= (index.num_voters >= command.min_votes) & (index.num_voters <= most)
    if command.patients:
        patients = index.ids("patient_id")
        for patient in command.patients:
            if patient not in patients:
                raise UserError(f"patients: no row is of patient {patient}; hms-dist keys SHARDS lists all")
        fits &= np.isin(patients, command.patients)
    if command.fold is not None:
        fits &= index.folds(command.num_folds) == command.fold
    return np.flatnonzero(fits)


def class_matrix(index: Index) -> NDArray[np.bool_]:
    """Whether each row is of each class [rows, classes]: most votes for it (ties: the first), or present."""
    return np.asarray(metric_of(index.dataset).labels(index.targets) == 1)


def key_table(index: Index, rows: NDArray[np.int64], num_folds: int) -> pd.DataFrame:
    """The listed columns of `rows` [n]."""
    frame, names = index.frame.iloc[rows], np.array(index.dataset.classes)
    if index.labelled:
        classes = [",".join(names[of_row]) or UNKNOWN for of_row in class_matrix(index)[rows]]
        votes = index.num_voters[rows].tolist()
    else:
        classes, votes = [UNKNOWN] * len(rows), [UNKNOWN] * len(rows)
    folds = frame[fold_column(num_folds)].astype(object).where(frame[fold_column(num_folds)].notna(), UNKNOWN)
    return pd.DataFrame(
        {
            "key": frame["key"].to_numpy(), "class": classes, "votes": votes,
            "patient": frame["patient_id"].to_numpy(), "fold": folds.to_numpy(),
        }
    )  # fmt: skip
