"""Checks of an index against the manifest of its set, and against the label table of the set."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_dist.core.parquet import read_schema
from hms_dist.datasets import Dataset
from hms_dist.labels.table import row_columns, sample_key
from hms_dist.shards.fault import Fault
from hms_dist.shards.index import Index, index_schema
from hms_dist.shards.manifest import Manifest, tar_names
from hms_dist.shards.schema import JSON_MEMBER


def index_faults(path: Path, index: Index, manifest: Manifest) -> Iterator[Fault]:
    """Check columns, counts, order of the shards, and keys: derived from the ids and unique."""
    expected = index_schema([JSON_MEMBER, *manifest.panels], manifest.dataset)
    found = read_schema(path).remove_metadata()
    if not found.equals(expected):
        different = [field.name for field in (*expected, *found) if field not in expected or field not in found]
        yield Fault(
            path,
            f"columns differ from those that the manifest implies: {', '.join(dict.fromkeys(different)) or 'order'}",
        )
    if len(index) != manifest.num_samples:
        yield Fault(path, f"expected {manifest.num_samples} rows, found {len(index)}")
    counts = [entry["num_samples"] for entry in manifest.files[: len(tar_names(manifest))]]
    if not np.array_equal(index.ids("shard"), np.repeat(np.arange(len(counts)), counts)):
        yield Fault(
            path, "column shard: the shards have other numbers of samples, or another order, than in the manifest"
        )
    yield from _texts(path, _key_faults(index.frame))


def _key_faults(frame: pd.DataFrame) -> Iterator[str]:
    for key in frame["key"][frame["key"].duplicated()]:
        yield f"key {key} appears twice"
    made = [sample_key(eeg, sub) for eeg, sub in zip(frame["eeg_id"], frame["eeg_sub_id"], strict=True)]
    for key, expected in zip(frame["key"], made, strict=True):
        if key != expected:
            yield f"key {key} is in the row of {expected}"


def label_faults(path: Path, index: Index, labels: pd.DataFrame, table: Path, rejected: set[str]) -> Iterator[Fault]:
    """Report ids, offsets and votes that differ from the label table, and rows that only one of the two has.

    `labels`: the frame of `read_labels`. Keys in `rejected` may be missing from the index.
    """
    ours, theirs = (_by_key(frame, index.dataset) for frame in (index.frame, labels))
    for key in theirs.index.difference(ours.index, sort=False):
        if key not in rejected:
            yield Fault(path, f"{key} is missing; {table} has it")
    for key in ours.index.difference(theirs.index, sort=False):
        yield Fault(path, f"{key} is not in {table}")
    theirs = theirs.loc[theirs.index.isin(ours.index)]
    ours = ours.loc[theirs.index]
    for column in theirs.columns:
        equal = _equal(ours[column], theirs[column])
        for key, found, expected in zip(ours.index[~equal], ours[column][~equal], theirs[column][~equal], strict=True):
            yield Fault(path, f"{key}: column {column} is {found}, in {table} {expected}")


def _by_key(frame: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Select the columns shared by index and label table, indexed by key; for a duplicate key its first row."""
    keys = [sample_key(eeg, sub) for eeg, sub in zip(frame["eeg_id"], frame["eeg_sub_id"], strict=True)]
    shared = frame[row_columns(dataset)].set_axis(keys)
    return shared[~shared.index.duplicated()]


def _equal(ours: "pd.Series[Any]", theirs: "pd.Series[Any]") -> np.ndarray:
    same = (ours == theirs).fillna(False).to_numpy(bool)
    return np.asarray(same | (ours.isna() & theirs.isna()).to_numpy(bool))


def _texts(path: Path, texts: Iterable[str]) -> Iterator[Fault]:
    return (Fault(path, text) for text in texts)
