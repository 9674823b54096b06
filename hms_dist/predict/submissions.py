"""Submissions (.csv) as predictions of label rows, with the models and rows stated by the user.

A submission names neither its models nor, in Kaggle's form, the row of an EEG. The 16th place's own files have a column
eeg_sub_id.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.labels.table import FOLD_COUNTS, sample_key
from hms_dist.results.lineage import ModelRecord, Source
from hms_dist.results.predictions import read_submission
from hms_dist.shards.index import Index


@dataclass(frozen=True, kw_only=True)
class StatedModels:
    """Models behind tables that do not name theirs, as stated by the user and recorded as such."""

    name: str
    """Description of the models in a few words, for the lineage of everything that learns from them."""
    fold: int | Literal["none"] = "none"
    """Validation fold of this shard set that all of them held out. none: they may have trained on any patient."""
    num_folds: int = 5
    """Number of folds that the patients were split into."""

    def __post_init__(self) -> None:
        if not self.name.strip():
            raise ValueError("submissions.name: expected a few words about the models, found none")
        if self.num_folds not in FOLD_COUNTS:
            raise ValueError(f"submissions.num_folds: expected 2 to {FOLD_COUNTS[-1]}, found {self.num_folds}")
        if self.fold != "none" and not 0 <= self.fold < self.num_folds:
            raise ValueError(f"submissions.fold: expected 0 to {self.num_folds - 1} or none, found {self.fold}")

    def source(self, path: Path, index: Index, shards: str) -> Source:
        """Build the record of the models behind the table `path`; `shards`: fingerprint of the set of `index`."""
        patients = index.ids("patient_id")
        if self.fold != "none":
            patients = patients[index.folds(self.num_folds) != self.fold]
        record = ModelRecord(
            run=f"{self.name} (stated for {path.name})", weights=sha256_of(path), shards=shards,
            fold=None if self.fold == "none" else self.fold, num_folds=self.num_folds, seed=0,
            patients=frozenset(patients.tolist()), dataset=index.dataset.name,
        )  # fmt: skip
        return Source(model=record)


def read_row_submission(path: Path, index: Index) -> pd.DataFrame:
    """Read a submission as predictions of rows of a shard set, by EEG and, if it has that column, eeg_sub_id.

    Raises UserError for several rows of an EEG without that column, and for duplicate rows. See `read_submission`.
    """
    by_row = path.exists() and "eeg_sub_id" in CsvTable(path, "a submission").names
    table = read_submission(path, ["eeg_id", *(["eeg_sub_id"] if by_row else [])], index.dataset)
    if not by_row:
        eegs = pd.Series(index.ids("eeg_id"))
        several = table["eeg_id"][table["eeg_id"].isin(eegs[eegs.duplicated()])]
        if len(several):
            raise UserError(
                f"{path}: EEG {several.iloc[0]} has several rows in the shard set ({len(several)} such EEGs); a column "
                "eeg_sub_id must identify the predicted row"
            )
        sub_ids = pd.Series(index.frame["eeg_sub_id"].to_numpy(np.int64), eegs)
        table["eeg_sub_id"] = sub_ids.reindex(table["eeg_id"]).fillna(0).to_numpy(np.int64)
    table["key"] = [sample_key(eeg, sub) for eeg, sub in table[["eeg_id", "eeg_sub_id"]].to_numpy(np.int64)]
    twice = table["key"].duplicated()
    if twice.any():
        raise UserError(f"{path}: row {table['key'][twice].iloc[0]} appears twice; expected once")
    return table.assign(fold=pd.array([pd.NA] * len(table), "Int64"))
