"""Labels of rows without their place in a recording: what scoring and fitting need of a table like train.csv.

Votes may be shares, or any numbers whose shares are the targets. Ids of spectrograms and offsets are not needed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.datasets import Dataset
from hms_dist.labels.table import MAX_VOTES, sample_key, targets_of

NUM_VOTES = "num_votes"
"""Column with the number of votes of a row whose votes are shares."""


@dataclass(frozen=True, kw_only=True)
class LabelRows:
    """Labels of rows, in the order of the file."""

    path: Path
    frame: pd.DataFrame
    """eeg_id, eeg_sub_id and patient_id, int64."""
    targets: NDArray[np.float64]
    """[rows, classes], as `targets_of` returns them."""
    num_votes: NDArray[np.float64]
    """Number of votes [rows], or of known classes; NaN if the table does not have it."""

    @property
    def keys(self) -> pd.Index:
        """Key of each row."""
        ids = self.frame[["eeg_id", "eeg_sub_id"]].to_numpy(np.int64)
        return pd.Index([sample_key(eeg, sub) for eeg, sub in ids])

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return sha256_of(self.path)


def read_label_rows(path: Path, dataset: Dataset) -> LabelRows:
    """Read the labels of a table: eeg_id, patient_id, votes and, unless each EEG has one row, eeg_sub_id.

    Raises UserError with file, row, column, expected and found value.
    """
    table, votes = CsvTable(path), dataset.vote_columns
    if not any(name in table.names for name in votes):
        raise UserError(f"{path}: the rows have no votes; scoring needs labelled rows")
    optional = [name for name in ("eeg_sub_id", NUM_VOTES) if name in table.names]
    required = ["eeg_id", "patient_id", *votes]
    table.check_names(required, [*required, *optional])
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one label row")
    ids = {name: table.integers(name) for name in ("eeg_id", "eeg_sub_id", "patient_id") if name in table.names}
    frame = pd.DataFrame({"eeg_sub_id": np.zeros(len(table), np.int64), **ids})
    twice = np.flatnonzero(frame.duplicated(["eeg_id", "eeg_sub_id"]).to_numpy())
    if twice.size:
        key = ", ".join(f"{name} {frame[name].iloc[twice[0]]}" for name in ("eeg_id", "eeg_sub_id"))
        raise UserError(f"{path}: row {twice[0] + 2}: {key} appears twice; each pair may appear once; remove one")
    values = np.stack([_column(table, name, dataset) for name in votes], axis=1)
    if dataset.target == "shares" and not (values.sum(axis=1) > 0).all():
        row = int((values.sum(axis=1) > 0).argmin())
        raise UserError(f"{path}: row {row + 2}: no votes at all; expected at least one; remove the row")
    targets = targets_of(values, dataset)
    return LabelRows(path=path, frame=frame, targets=targets, num_votes=_num_votes(table, values, dataset))


def _column(table: CsvTable, name: str, dataset: Dataset) -> NDArray[np.float64]:
    if dataset.target == "shares":
        return table.numbers(name, MAX_VOTES)
    found = table.integers_or_none(name, MAX_VOTES)
    return np.array([np.nan if value is None else value for value in found])


def _num_votes(table: CsvTable, values: NDArray[np.float64], dataset: Dataset) -> NDArray[np.float64]:
    if dataset.target == "yes_no":
        return np.isfinite(values).sum(axis=1).astype(np.float64)
    if NUM_VOTES in table.names:
        return table.integers(NUM_VOTES, MAX_VOTES).astype(np.float64)
    is_whole = (values == np.floor(values)).all()
    return values.sum(axis=1) if is_whole else np.full(len(values), np.nan)
