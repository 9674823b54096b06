"""The label rows of a folder of recordings: train.csv or test.csv of EEG, the annotations or windows of audio."""

from pathlib import Path
from typing import Literal

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.labels.table import LabelTable, read_labels
from hms_dist.recordings.annotations import read_annotations, unlabelled_windows


def read_rows(data: Path, split: Literal["train", "test"], dataset: Dataset, table: Path | None = None) -> LabelTable:
    """Read the label rows of one split of `data`. `table`: another label table of EEG.

    Raises UserError with file, row, column, expected and found value.
    """
    if dataset.signal == "eeg":
        return read_labels(table or data / f"{split}.csv", dataset)
    if table is not None:
        raise UserError(f"table: the rows of audio are those of {data}; leave it out, or give another folder")
    return read_annotations(data, dataset) if split == "train" else unlabelled_windows(data, dataset)
