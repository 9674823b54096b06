"""Label rows: the table train.csv, its votes, values derived from them, and patient folds."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.datasets import HMS, Dataset

ID_COLUMNS = ("eeg_id", "spectrogram_id", "patient_id")
OFFSET_COLUMNS = {
    "eeg_sub_id": 0,
    "eeg_label_offset_seconds": 0.0,
    "spectrogram_label_offset_seconds": 0.0,
}
"""Columns that Kaggle's test.csv lacks -> the values used instead."""
BOX_COLUMNS = ("t_min", "f_min", "t_max", "f_max", "songtype_id")
"""Columns of audio: the annotated box, seconds of the recording and hertz, and the kind of song; null without one."""
MAX_OFFSET_S = 1e9
"""Largest offset in seconds (30 years): sample numbers are exact below it."""
MAX_VOTES = 2**31 - 1
"""Most votes for one class in one row: sums are exact below it."""
FOLD_COUNTS = range(2, 11)
"""Numbers of folds into which the patients of a shard set are split; each number is a separate split."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class LabelTable:
    """Checked label rows: ids int64, offsets float64 in seconds, votes Int64 (null where unlabelled or unknown)."""

    path: Path
    frame: pd.DataFrame
    """ID_COLUMNS, OFFSET_COLUMNS and the data set's vote columns, one row per label row in file order.

    Also expert_consensus, one of `Dataset.consensus_names`, if the file is labelled and has it; of audio BOX_COLUMNS.
    """
    labelled: bool
    """True if the table has votes (train.csv), False if not (test.csv)."""
    dataset: Dataset = HMS
    """The data set that the rows are of."""
    files: tuple[tuple[Path, int], ...] = ()
    """Files that the rows are from, each with its number of rows. Empty: `path` alone."""

    def where(self, row: int) -> str:
        """File of a row, counted from 0, and its line there; the folder of rows that no file lists. Raises
        IndexError."""
        for path, count in self.files or ((self.path, len(self.frame)),):
            if row < count:
                return str(path) if path.is_dir() else f"{path}: row {row + 2}"
            row -= count
        raise IndexError(row)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file or, of audio, of the rows: their windows depend on the recordings' lengths too."""
        if self.dataset.signal == "eeg":
            return sha256_of(self.path)
        return hashlib.sha256(self.frame.to_csv(index=False).encode()).hexdigest()


def read_labels(path: Path, dataset: Dataset = HMS) -> LabelTable:
    """Read train.csv or test.csv of a data set. Raises UserError with file, row, column, expected and found value."""
    table, votes = CsvTable(path), dataset.vote_columns
    labelled = any(name in table.names for name in votes)
    required = [*ID_COLUMNS, *(OFFSET_COLUMNS if labelled else ()), *(votes if labelled else ())]
    table.check_names(required, [*required, *OFFSET_COLUMNS, "expert_consensus"])
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one label row")
    columns: dict[str, Any] = {name: table.integers(name) for name in ID_COLUMNS}
    for name, default in OFFSET_COLUMNS.items():
        if name not in table.names:
            columns[name] = np.full(len(table), default)
        elif name == "eeg_sub_id":
            columns[name] = table.integers(name)
        else:
            columns[name] = table.numbers(name, MAX_OFFSET_S)
    may_be_null = dataset.target == "yes_no"  # nobody looked for that class
    for name in votes:
        if not labelled:
            columns[name] = pd.array([None] * len(table), "Int64")
        elif may_be_null:
            columns[name] = pd.array(table.integers_or_none(name, MAX_VOTES), "Int64")
        else:
            columns[name] = table.integers(name, MAX_VOTES)
    frame = pd.DataFrame(columns).astype({"eeg_sub_id": "int64", **dict.fromkeys(votes, "Int64")})
    if labelled and dataset.consensus_names and "expert_consensus" in table.names:
        frame["expert_consensus"] = _consensus(table, dataset)
    _check_rows(path, frame)
    if labelled:
        _check_votes(path, frame[list(votes)], dataset)
    return LabelTable(path=path, frame=frame, labelled=labelled, dataset=dataset)


def row_columns(dataset: Dataset) -> list[str]:
    """Columns of a label row that the index of a shard set repeats: ids, offsets, votes and, of audio, the box."""
    boxes = BOX_COLUMNS if dataset.signal == "audio" else ()
    return [*ID_COLUMNS, *OFFSET_COLUMNS, *dataset.vote_columns, *boxes]


def sample_key(eeg_id: int, eeg_sub_id: int) -> str:
    """Return the key of a label row, unique in a shard set."""
    return f"{eeg_id}-{eeg_sub_id}"


def shared_spectrograms(frame: pd.DataFrame) -> list[int]:
    """Return spectrograms that are shared by several patients, and so may fall on both sides of a split by patient."""
    patients = frame.groupby("spectrogram_id")["patient_id"].nunique()
    return [int(number) for number in patients.index[patients > 1]]


def targets_of(votes: NDArray[np.integer] | Floats, dataset: Dataset = HMS) -> Floats:
    """Convert votes to targets [rows, classes], float64: shares of the votes, or 1 (any vote), 0 and NaN (unknown).

    Raises ValueError for a negative vote and, for shares, for a row without votes.
    """
    votes = np.asarray(votes, np.float64)
    if dataset.target == "yes_no":
        if (votes < 0).any():
            raise ValueError("votes: expected none below zero")
        return np.where(np.isnan(votes), np.nan, votes > 0)
    totals = votes.sum(axis=1, keepdims=True)
    if (votes < 0).any() or not (totals > 0).all():
        raise ValueError("votes: every row needs at least one vote and none below zero")
    return votes / totals


def num_voters(votes: NDArray[np.integer] | Floats) -> Ints:
    """Number of votes per row [rows], int64."""
    return np.asarray(votes).sum(axis=1).astype(np.int64)


def rebalancing_probabilities(votes: NDArray[np.integer] | Floats) -> Floats:
    """Probability [rows] of keeping each row so that classes are rebalanced (the course report), from `votes` [rows,
    classes], any integer dtype or float64.

    Inversely proportional to the share of the row's class (most votes; among equal ones the first) in all votes; the
    class with the smallest share above 0 keeps all its rows.
    """
    votes = np.asarray(votes)
    totals = votes.sum(axis=0)
    rarest = totals[totals > 0].min(initial=int(totals.sum()))
    return np.asarray(np.minimum(rarest / np.maximum(totals, 1), 1.0)[votes.argmax(axis=1)], np.float64)


def strata_of(votes: Floats | Ints) -> Ints:
    """Class with most votes of each row [rows], by which folds are stratified; rows that lack a yes to any class, or
    whose votes are unknown, follow as a class of their own."""
    counts = np.nan_to_num(np.asarray(votes, np.float64))
    return np.where(counts.max(axis=1) > 0, counts.argmax(axis=1), counts.shape[1]).astype(np.int64)


def patient_folds(votes: Floats | Ints, patient_ids: Sequence[int] | Ints, num_folds: int, seed: int) -> Ints:
    """Assign each row to a fold [rows], int64: every patient in one fold, `strata_of` spread evenly.

    scikit-learn's StratifiedGroupKFold, shuffled by `seed`, independent of the order of the rows. Raises UserError if
    there are fewer patients than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    patients, consensus = np.asarray(patient_ids), strata_of(votes)
    if len(np.unique(patients)) < num_folds:
        raise too_few_patients(num_folds, len(np.unique(patients)))
    if np.bincount(consensus).max() < num_folds:
        consensus[:] = 0  # nothing to stratify: scikit-learn raises when every class has fewer rows than folds
    folds = np.empty(len(patients), np.int64)
    order = np.lexsort((consensus, patients))  # scikit-learn numbers the classes in order of appearance
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class with fewer rows than folds cannot reach every fold
        warnings.filterwarnings("ignore", message="The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(order, consensus[order], patients[order])):
            folds[order[held_out]] = fold
    return folds


def too_few_patients(num_folds: int, num_patients: int) -> UserError:
    """Build the error for more folds than patients."""
    return UserError(f"num_folds: {num_folds} folds need as many patients, found {num_patients}; lower num_folds")


def _consensus(table: CsvTable, dataset: Dataset) -> list[str]:
    names = table.words("expert_consensus")
    unknown = next((row for row, name in enumerate(names) if name not in dataset.consensus_names), None)
    if unknown is not None:
        raise UserError(
            f"{table.path}: row {unknown + 2}, column expert_consensus: unknown class '{names[unknown][:40]}'; "
            f"one of: {', '.join(dataset.consensus_names)}"
        )
    return names


def _check_rows(path: Path, frame: pd.DataFrame) -> None:
    """Check across columns: unique keys, one patient per EEG (else folds would leak)."""
    twice = np.flatnonzero(frame.duplicated(["eeg_id", "eeg_sub_id"]).to_numpy())
    if twice.size:
        key = ", ".join(f"{name} {frame[name].iloc[twice[0]]}" for name in ("eeg_id", "eeg_sub_id"))
        raise UserError(f"{path}: row {twice[0] + 2}: {key} appears twice; each pair may appear once; remove one")
    first = frame.groupby("eeg_id")["patient_id"].transform("first")
    two = np.flatnonzero((first != frame["patient_id"]).to_numpy())
    if two.size:
        eeg_id, patient_id = frame["eeg_id"].iloc[two[0]], frame["patient_id"].iloc[two[0]]
        raise UserError(
            f"{path}: row {two[0] + 2}: EEG {eeg_id} is of patient {patient_id}, above it is of "
            f"{first.iloc[two[0]]}; expected one patient per EEG; fix the table"
        )


def _check_votes(path: Path, votes: pd.DataFrame, dataset: Dataset) -> None:
    """Check that each row has a vote or, where classes may be unknown, that the table knows any."""
    if dataset.target == "yes_no":
        if votes.isna().to_numpy().all():
            raise UserError(f"{path}: every vote is empty, so no class is known in any row; expected 0 or 1 in some")
        return
    silent = np.flatnonzero(votes.to_numpy(np.int64).sum(axis=1) == 0)
    if silent.size:
        raise UserError(f"{path}: row {silent[0] + 2}: no votes at all; expected at least one; remove the row")
