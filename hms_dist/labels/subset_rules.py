"""Rules that derive a label table from another: rows selected, or rows summed into one.

A rule is a function of a checked table (`LabelTable.frame`) and its data set; its other keyword parameters are its
options. It returns a table with the same columns, in the order of the source rows.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from hms_dist.core.errors import UserError
from hms_dist.core.keyed import keyed_hash
from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.table import num_voters

SPECTROGRAM_WINDOW_S = 600.0
"""Length in seconds of the spectrogram of a label row."""


def balanced(frame: pd.DataFrame, *, rows_per_class: int = 50, seed: int = 0, dataset: Dataset = HMS) -> pd.DataFrame:
    """Draw `rows_per_class` rows of every class without replacement, by keyed hashes of their ids (the wavelet
    ablation).

    Raises UserError naming the class that has fewer.
    """
    classes = classes_of(frame, dataset)
    order = np.argsort(keyed_hash(seed, frame["eeg_id"], frame["eeg_sub_id"]), kind="stable")
    chosen = []
    for number, name in enumerate(dataset.titles):
        rows = order[classes[order] == number]
        if len(rows) < rows_per_class:
            raise UserError(
                f"rows_per_class: {rows_per_class} rows of each class needed, {name} has {len(rows)}; lower it"
            )
        chosen.append(rows[:rows_per_class])
    return frame.iloc[np.sort(np.concatenate(chosen))]


def high_vote(frame: pd.DataFrame, *, min_votes: int = 8, dataset: Dataset = HMS) -> pd.DataFrame:
    """Keep rows with at least `min_votes` votes; 8 is the 16th place's "more than 7 voters"."""
    return frame[num_voters(_votes(frame, dataset)) >= min_votes]


def golden(frame: pd.DataFrame, *, min_votes: int = 9, dataset: Dataset = HMS) -> pd.DataFrame:
    """Keep one row for each distinct label of an EEG among rows with at least `min_votes` votes (3rd place: more than
    8).

    A label is the vote counts of all classes. Among the rows that share EEG and label, the one is kept whose 10-minute
    window has the largest total overlap with theirs; of equal ones the first in the table.
    """
    voted = high_vote(frame, min_votes=min_votes, dataset=dataset)
    groups = voted.groupby(["eeg_id", *dataset.vote_columns], sort=False)["spectrogram_label_offset_seconds"]
    best = [offsets.index[int(_overlaps(offsets.to_numpy()).argmax())] for _, offsets in groups]
    return frame.loc[sorted(best)]


def eeg_sum(frame: pd.DataFrame, *, data: Path, dataset: Dataset = HMS) -> pd.DataFrame:
    """Make one row per EEG: votes summed, its middle 50 s, the mean of its first and last spectrogram offset.

    This is the public baseline's table. `data` is the folder whose train_eegs/ holds the EEGs (only Parquet footers are
    read). The window of an EEG of n samples starts at sample (n - 10,000) // 2; its offset in seconds converts back to
    exactly that sample. Raises UserError for an EEG with two spectrograms, a missing EEG, or one shorter than 50 s.
    """
    spectrograms = frame.groupby("eeg_id")["spectrogram_id"].nunique()
    if (spectrograms > 1).any():
        raise UserError(f"EEG {spectrograms.idxmax()} has {spectrograms.max()} spectrograms; rule eeg_sum expects one")
    summed = _summed(frame, "eeg_id", frame.groupby("eeg_id", sort=False).head(1).index, dataset)
    paths = [data / f"train_eegs/{number}.parquet" for number in summed["eeg_id"]]
    starts = [_middle(path) for path in tqdm(paths, "lengths", unit="EEG", disable=None)]
    return summed.assign(eeg_sub_id=0, eeg_label_offset_seconds=np.array(starts) / RATE_HZ)


def spectrogram_sum(frame: pd.DataFrame, *, dataset: Dataset = HMS) -> pd.DataFrame:
    """Make one row per spectrogram: votes summed, the mean of its first and last offset (as the course report groups
    rows).

    Ids and EEG window are those of the row whose own offset is nearest to that mean; of equal ones the first.
    """
    distance = (frame["spectrogram_label_offset_seconds"] - _mean_offset(frame, "spectrogram_id")).abs()
    nearest = frame.loc[distance.sort_values(kind="stable").index].groupby("spectrogram_id").head(1)
    return _summed(frame, "spectrogram_id", nearest.index.sort_values(), dataset)


RULES: Mapping[str, Callable[..., pd.DataFrame]] = {
    "balanced": balanced,
    "high_vote": high_vote,
    "golden": golden,
    "eeg_sum": eeg_sum,
    "spectrogram_sum": spectrogram_sum,
}
"""Name -> rule: (table, options) to the derived table."""


def classes_of(frame: pd.DataFrame, dataset: Dataset = HMS) -> NDArray[np.int64]:
    """Return the class [rows], from 0: expert_consensus if the table has it, else the class with most votes."""
    if "expert_consensus" in frame:
        return np.array(frame["expert_consensus"].map(dataset.consensus_names), np.int64)
    return np.asarray(_votes(frame, dataset).argmax(axis=1), np.int64)


def _votes(frame: pd.DataFrame, dataset: Dataset) -> NDArray[np.int64]:
    return frame[list(dataset.vote_columns)].to_numpy(np.int64)


def _overlaps(offsets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Seconds by which each row's 10-minute window overlaps the windows of all rows [rows]."""
    apart = np.abs(offsets[:, None] - offsets)
    return np.maximum(SPECTROGRAM_WINDOW_S - apart, 0).sum(axis=1)


def _summed(frame: pd.DataFrame, group: str, kept: pd.Index, dataset: Dataset) -> pd.DataFrame:
    """Return rows `kept`, one per group, with the group's votes, their consensus and the mean spectrogram offset."""
    rows = frame.loc[kept].copy()
    groups = frame.groupby(group)
    columns = {name: groups[name].transform("sum") for name in dataset.vote_columns}
    columns["spectrogram_label_offset_seconds"] = _mean_offset(frame, group)
    for name, column in columns.items():
        rows[name] = column.loc[kept]
    if "expert_consensus" in rows:
        rows["expert_consensus"] = np.array(dataset.titles)[
            _most_votes(_votes(rows, dataset), classes_of(rows, dataset))
        ]
    return rows


def _most_votes(votes: NDArray[np.int64], preferred: NDArray[np.int64]) -> NDArray[np.int64]:
    """Class with most votes in each row [rows]: among equal ones the preferred one, else the first."""
    is_preferred = votes[np.arange(len(votes)), preferred] == votes.max(axis=1)
    return np.where(is_preferred, preferred, votes.argmax(axis=1))


def _mean_offset(frame: pd.DataFrame, group: str) -> "pd.Series[float]":
    """Mean of the first and last spectrogram offset of each row's group [rows], in seconds."""
    offsets = frame.groupby(group)["spectrogram_label_offset_seconds"]
    return (offsets.transform("min") + offsets.transform("max")) / 2


def _middle(path: Path) -> int:
    """First sample of the middle 50 s."""
    length = _num_samples(path)
    if length < WINDOW_SAMPLES:
        raise UserError(f"{path}: expected at least {WINDOW_SAMPLES} samples, found {length}; remove its rows")
    return (length - WINDOW_SAMPLES) // 2


def _num_samples(path: Path) -> int:
    """Number of samples in an EEG file, from its footer. Raises UserError if it is missing or not Parquet."""
    from hms_dist.core.parquet import ParquetError, num_rows  # importing Arrow takes time

    try:
        return num_rows(path)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the label table names it, so add it or remove its rows") from error
    except (ParquetError, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file; download it again") from error
