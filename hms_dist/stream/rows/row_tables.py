"""Prediction tables joined to the rows of a shard set by key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.results.exact_table import read_table
from hms_dist.results.predictions import are_probabilities, check_dataset, in_words
from hms_dist.shards.index import Index, Rows


@dataclass(frozen=True)
class RowTable:
    """Predictions for rows of a shard set."""

    rows: Rows
    """Rows [n] in the tables, without duplicates, in table order."""
    probabilities: NDArray[np.float64]
    """[rows, classes]; each row sums to 1 where targets are shares."""
    frame: pd.DataFrame
    """Rows of the tables, in the same order."""

    def probabilities_of(self, rows: Rows) -> NDArray[np.float64]:
        """Probabilities [len(rows), classes] of the given rows; NaN for rows that the tables lack."""
        places = pd.Index(self.rows).get_indexer(pd.Index(rows))
        return np.where((places >= 0)[:, None], self.probabilities[places], np.nan)


def read_row_table(paths: Sequence[Path], index: Index, columns: Sequence[str] = ()) -> RowTable:
    """Read tables with key, a probability per class and `columns`, and concatenate them.

    Raises UserError naming the file and the number of rows if keys are not in the index or are duplicated, if rows are
    not probabilities or a table is of other classes, and as `read_table` does.
    """
    dataset = index.dataset
    for path in paths:
        if path.is_file():
            check_dataset(path, dataset)
    frames = [read_table(path, ["key", *columns, *dataset.classes]).assign(path=str(path)) for path in paths]
    frame = pd.concat(frames, ignore_index=True)
    rows = pd.Index(index.frame["key"]).get_indexer(pd.Index(frame["key"]))
    _refuse(frame, rows < 0, "not a sample of the shard set", "is the table of another set?")
    _refuse(frame, frame["key"].duplicated().to_numpy(), "appears twice", "give each row once")
    values = frame[list(dataset.classes)].to_numpy(np.float64)
    _refuse(frame, ~are_probabilities(values, dataset, 1e-3), f"expected {in_words(dataset)}", "fix the table")
    if dataset.target == "shares":
        values = values / values.sum(axis=1, keepdims=True)
    return RowTable(rows.astype(np.int64), values, frame)


def _refuse(frame: pd.DataFrame, bad: NDArray[np.bool_], fault: str, advice: str) -> None:
    if bad.any():
        path, key = frame.loc[int(bad.argmax()), ["path", "key"]]
        raise UserError(f"{path}: key {key}: {fault} ({bad.sum()} such rows of {len(frame)}); {advice}")
