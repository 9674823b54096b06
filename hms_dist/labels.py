"""Label rows: the table train.csv, votes and what is derived from them, patient folds."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.errors import UserError

CLASSES = ("seizure", "lpd", "gpd", "lrda", "grda", "other")
"""Class order everywhere."""
VOTE_COLUMNS = tuple(f"{name}_vote" for name in CLASSES)
CONSENSUS_NAMES = {"Seizure": 0, "LPD": 1, "GPD": 2, "LRDA": 3, "GRDA": 4, "Other": 5}
"""Kaggle's spelling of expert_consensus, and the class each names."""
ID_COLUMNS = ("eeg_id", "spectrogram_id", "patient_id")
OFFSET_COLUMNS = {
    "eeg_sub_id": 0,
    "eeg_label_offset_seconds": 0.0,
    "spectrogram_label_offset_seconds": 0.0,
}
"""Columns that Kaggle's test.csv lacks, and what stands in their place there."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Checked label rows: ids int64, offsets float64 seconds, votes Int64 (null where unlabelled)."""

    path: Path
    frame: pd.DataFrame
    """ID_COLUMNS, OFFSET_COLUMNS and VOTE_COLUMNS, a row a label row, in the order of the file."""
    labelled: bool
    """True if the table has votes (train.csv), False if not (test.csv)."""


def read_labels(path: Path) -> LabelTable:
    """Read train.csv or test.csv. Raises UserError naming file, row, column, expected and found."""
    frame = _read_csv(path)
    votes_present = [name for name in VOTE_COLUMNS if name in frame]
    labelled = bool(votes_present)
    required = [*ID_COLUMNS, *(OFFSET_COLUMNS if labelled else ()), *(VOTE_COLUMNS if labelled else ())]
    missing = [name for name in required if name not in frame]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing; expected {', '.join(required)}")
    if frame.empty:
        raise UserError(f"{path}: no rows; expected at least one label row")
    columns: dict[str, Any] = {name: _whole_numbers(path, frame, name, 0) for name in ID_COLUMNS}
    for name, default in OFFSET_COLUMNS.items():
        if name not in frame:
            columns[name] = np.full(len(frame), default)
        elif name == "eeg_sub_id":
            columns[name] = _whole_numbers(path, frame, name, 0)
        else:
            columns[name] = _numbers(path, frame, name, 0)
    for name in VOTE_COLUMNS:
        columns[name] = _whole_numbers(path, frame, name, 0) if labelled else pd.array([None] * len(frame), "Int64")
    table = pd.DataFrame(columns).astype({"eeg_sub_id": "int64", **dict.fromkeys(VOTE_COLUMNS, "Int64")})
    _check_rows(path, frame, table, labelled)
    return LabelTable(path=path, frame=table, labelled=labelled)


def targets_of(votes: NDArray[np.integer] | Floats) -> Floats:
    """Shares of the votes [rows, 6], float64. Raises ValueError if a row has no vote or a negative one."""
    votes = np.asarray(votes, np.float64)
    totals = votes.sum(axis=1, keepdims=True)
    if (votes < 0).any() or not (totals > 0).all():
        raise ValueError("votes: every row needs at least one vote and none below zero")
    return votes / totals


def num_voters(votes: NDArray[np.integer] | Floats) -> Ints:
    """Votes a row [rows], int64."""
    return np.asarray(votes).sum(axis=1).astype(np.int64)


def patient_folds(votes: Floats | Ints, patient_ids: Sequence[int] | Ints, num_folds: int, seed: int) -> Ints:
    """Fold of each row [rows], int64: no patient in two folds, classes (most votes) spread evenly.

    scikit-learn's StratifiedGroupKFold, shuffled by `seed`. Raises UserError with fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients = np.asarray(patient_ids)
    if len(np.unique(patients)) < num_folds:
        raise UserError(
            f"num_folds: {num_folds} folds need as many patients, found {len(np.unique(patients))}; lower num_folds"
        )
    folds = np.empty(len(patients), np.int64)
    consensus = np.asarray(votes).argmax(axis=1)
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer rows than folds is spread as far as it goes
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(patients, consensus, patients)):
            folds[held_out] = fold
    return folds


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the label table")
    try:
        return pd.read_csv(path)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot read it as CSV ({' '.join(str(error).split())})") from error


def _numbers(path: Path, frame: pd.DataFrame, name: str, smallest: float) -> Floats:
    """Column `name` as finite float64 of at least `smallest`; UserError names the first row that is not."""
    values = pd.to_numeric(frame[name], errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= smallest)))
    if bad.size:
        raise UserError(_bad_cell(path, bad[0], name, f"a number of at least {smallest}", frame[name].iloc[bad[0]]))
    return values


def _whole_numbers(path: Path, frame: pd.DataFrame, name: str, smallest: int) -> Ints:
    values = _numbers(path, frame, name, smallest)
    bad = np.flatnonzero(values != np.floor(values))
    if bad.size:
        raise UserError(_bad_cell(path, bad[0], name, "a whole number", frame[name].iloc[bad[0]]))
    return values.astype(np.int64)


def _bad_cell(path: Path, row: int, column: str, expected: str, found: object) -> str:
    return f"{path}: row {row + 2}, column {column}: expected {expected}, found '{found}'; mend the table"


def _check_rows(path: Path, frame: pd.DataFrame, table: pd.DataFrame, labelled: bool) -> None:
    """Checks across columns: unique keys, at least one vote a row, known consensus names."""
    twice = np.flatnonzero(table.duplicated(["eeg_id", "eeg_sub_id"]).to_numpy())
    if twice.size:
        key = ", ".join(f"{name} {table[name].iloc[twice[0]]}" for name in ("eeg_id", "eeg_sub_id"))
        raise UserError(f"{path}: row {twice[0] + 2}: {key} stands twice; each pair may appear once; remove one")
    if not labelled:
        return
    votes = table[list(VOTE_COLUMNS)].to_numpy(np.int64)
    silent = np.flatnonzero(votes.sum(axis=1) == 0)
    if silent.size:
        raise UserError(f"{path}: row {silent[0] + 2}: no votes at all; expected at least one; remove the row")
    if "expert_consensus" in frame:
        unknown = np.flatnonzero(~frame["expert_consensus"].isin(list(CONSENSUS_NAMES)).to_numpy())
        if unknown.size:
            found = frame["expert_consensus"].iloc[unknown[0]]
            raise UserError(
                f"{path}: row {unknown[0] + 2}, column expert_consensus: unknown class '{found}'; "
                f"one of: {', '.join(CONSENSUS_NAMES)}"
            )
