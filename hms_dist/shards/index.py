"""The index of a shard set, one row per sample: the label table, and the byte ranges for random access."""

import errno
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.parquet import ParquetError, read_parquet
from hms_dist.core.remote import advice, join, read_bytes
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.table import BOX_COLUMNS, FOLD_COUNTS, num_voters, targets_of, too_few_patients
from hms_dist.shards.index_values import column_fault, member_fault, row_fault
from hms_dist.shards.manifest import Manifest, read_manifest, tar_names
from hms_dist.shards.schema import (
    INDEX_NAME,
    JSON_MEMBER,
    member_order,
)

Rows = NDArray[np.int64]
"""Row numbers of an index, from 0."""

_SAMPLE_FIELDS = [
    ("key", pa.string()), ("shard", pa.int32()),
    ("eeg_id", pa.int64()), ("eeg_sub_id", pa.int64()), ("spectrogram_id", pa.int64()), ("patient_id", pa.int64()),
    ("eeg_label_offset_seconds", pa.float64()), ("spectrogram_label_offset_seconds", pa.float64()),
]  # fmt: skip
_BOX_FIELDS = [(name, pa.int64() if name == "songtype_id" else pa.float64()) for name in BOX_COLUMNS]
"""Of audio: the annotated box."""
_SOURCE_FIELDS = [("eeg_fingerprint", pa.string()), ("spectrogram_fingerprint", pa.string())]


def _sample_fields(dataset: Dataset) -> list[tuple[str, pa.DataType]]:
    """Columns of every index. Votes are null for unlabelled rows, and for unknown classes; boxes for the former."""
    boxes = _BOX_FIELDS if dataset.signal == "audio" else []
    return [*_SAMPLE_FIELDS, *((name, pa.int64()) for name in dataset.vote_columns), *boxes, *_SOURCE_FIELDS]


def fold_column(num_folds: int) -> str:
    """Name of the index column with each row's fold out of `num_folds`."""
    return f"fold_of_{num_folds}"


FOLD_FIELDS = [(fold_column(num_folds), pa.int8()) for num_folds in FOLD_COUNTS]
"""Fold of each row, from 0, in splits by patient; null without votes, or with fewer patients than folds."""
MEMBER_FIELDS = (("offset", pa.int64()), ("size", pa.int32()), ("crc32", pa.uint32()))
"""Columns `<member>.<field>` of each member: offset in the tar, number of bytes, CRC-32 of those bytes."""


@dataclass(frozen=True)
class MemberMap:
    """Byte ranges of one member of every sample: arrays [samples]."""

    offset: NDArray[np.int64]
    size: NDArray[np.int32]
    crc32: NDArray[np.uint32]


@dataclass(frozen=True)
class Index:
    """The rows of a shard set, in the order of the shards."""

    frame: pd.DataFrame
    name: str = "index"
    """Name of the file in messages."""
    dataset: Dataset = HMS
    """The data set of the rows."""

    def __len__(self) -> int:
        return len(self.frame)

    @cached_property
    def labelled(self) -> bool:
        """Whether the rows have votes. Independent yes/no classes may be unknown in any row."""
        return is_labelled(self.frame, self.dataset)

    @cached_property
    def votes(self) -> NDArray[np.int64]:
        """Votes [samples, classes]. Raises UserError if the set is unlabelled, or its classes are independent."""
        if self.dataset.target != "shares":
            raise UserError(f"{self.name}: its classes are independent (target yes_no), and this counts votes")
        return self._labelled_votes.to_numpy(np.int64)

    @cached_property
    def targets(self) -> NDArray[np.float64]:
        """Targets [samples, classes]: shares of the votes, or 1 (yes), 0 (no) and NaN (unknown).

        Raises UserError if the set is unlabelled.
        """
        return targets_of(self._labelled_votes.to_numpy(np.float64, na_value=np.nan), self.dataset)

    @cached_property
    def num_voters(self) -> NDArray[np.int64]:
        """Number of votes per row [samples]; for independent yes/no classes, the number of known ones."""
        if self.dataset.target != "shares":
            return np.isfinite(self.targets).sum(axis=1)
        return num_voters(self.votes)

    @property
    def _labelled_votes(self) -> pd.DataFrame:
        if not self.labelled:
            raise UserError(f"{self.name}: the rows have no votes (rendered from test.csv); this needs labelled rows")
        return self.frame[list(self.dataset.vote_columns)]

    def folds(self, num_folds: int) -> NDArray[np.int64]:
        """Fold of each row [samples], 0 to `num_folds` - 1, `num_folds` in FOLD_COUNTS; each patient is in one fold.

        Raises UserError if the set is unlabelled or has fewer patients than folds.
        """
        column = self.frame[fold_column(num_folds)]
        if column.isna().any():
            _ = self._labelled_votes
            raise too_few_patients(num_folds, self.frame["patient_id"].nunique())
        return column.to_numpy(np.int64)

    def ids(self, name: str) -> NDArray[np.int64]:
        """An integer column (`eeg_id`, `patient_id`, `shard`, ...) [samples]."""
        return self.frame[name].to_numpy(np.int64)

    @cached_property
    def annotated_s(self) -> NDArray[np.float64] | None:
        """Middle of each row's annotation [samples], seconds from the start of its window; NaN for rows without one.
        None: that of every row is the middle of its window."""
        if self.dataset.signal == "eeg":
            return None
        begin, end, offset = (
            self.frame[name].to_numpy(np.float64) for name in ("t_min", "t_max", "eeg_label_offset_seconds")
        )
        return np.asarray((begin + end) / 2 - offset)

    def member(self, name: str) -> MemberMap:
        """Byte ranges of member `name` (a panel's name, or `json`) in all samples."""
        return MemberMap(
            self.frame[f"{name}.offset"].to_numpy(np.int64),
            self.frame[f"{name}.size"].to_numpy(np.int32),
            self.frame[f"{name}.crc32"].to_numpy(np.uint32),
        )

    def row_of(self, key: str) -> int:
        """Row of the sample `key`. Raises UserError if there is none."""
        rows = np.flatnonzero((self.frame["key"] == key).to_numpy())
        if not rows.size:
            example = self.frame["key"].iloc[0]
            raise UserError(
                f"--key: no sample '{key}' among {len(self)}; keys are <eeg_id>-<eeg_sub_id>, like {example}"
            )
        return int(rows[0])


def is_labelled(rows: pd.DataFrame, dataset: Dataset) -> bool:
    """Whether index rows have votes: all of them, or any where classes may be unknown."""
    known = rows[list(dataset.vote_columns)].notna().to_numpy()
    return bool(known.any() if dataset.target == "yes_no" else known.all())


def index_schema(members: Iterable[str], dataset: Dataset = HMS) -> pa.Schema:
    """Arrow schema of an index whose samples hold `members`, given in any order."""
    return pa.schema([*_sample_fields(dataset), *FOLD_FIELDS, *_member_fields(members)])


def rows_schema(members: Iterable[str], dataset: Dataset = HMS) -> pa.Schema:
    """Arrow schema of the index rows of one shard: without the folds, which depend on all shards."""
    return pa.schema([*_sample_fields(dataset), *_member_fields(members)])


def _member_fields(members: Iterable[str]) -> list[tuple[str, pa.DataType]]:
    return [(f"{member}.{name}", kind) for member in member_order(members) for name, kind in MEMBER_FIELDS]


def open_set(location: Path | str) -> tuple[Manifest, Index]:
    """Read manifest and index of a complete shard set, in a folder or at a URL.

    Raises UserError if one is missing, damaged or of another set.
    """
    manifest = read_manifest(location)
    path, tars = join(location, INDEX_NAME), manifest.files[: len(tar_names(manifest))]
    entry = manifest.files[len(tars)]
    content = _index_bytes(path, entry["num_bytes"])
    if len(content) != entry["num_bytes"] or hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise _other_index(path)
    dataset = manifest.dataset
    table = _parsed_index(path, content, index_schema([JSON_MEMBER, *manifest.panels], dataset))
    samples = [tar["num_samples"] for tar in tars]
    fault = member_fault(table, [tar["num_bytes"] for tar in tars], manifest.panels)
    fault = fault or row_fault(table, samples, dataset)
    if fault:
        raise UserError(f"{path}: {fault}; the set was not made by hms-dist render; render it again")
    return manifest, Index(as_frame(table), str(path), dataset)


def read_index(path: Path, dataset: Dataset = HMS) -> Index:
    """Read an index. Raises UserError as `index_table`."""
    return Index(as_frame(index_table(path, dataset)), str(path), dataset)


def index_table(path: Path, dataset: Dataset = HMS) -> pa.Table:
    """Read the rows of an index; members are not checked. Raises UserError if it is missing, not Parquet or lacks a
    required column."""
    content = _index_bytes(path, limits.PARQUET_BYTES)
    return _parsed_index(path, content, pa.schema([*_sample_fields(dataset), *FOLD_FIELDS]))


def _index_bytes(path: Path | str, limit: int) -> bytes:
    try:
        return read_bytes(path, limit)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; is this a complete shard set? run hms-dist render") from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _other_index(path) from error
        raise UserError(f"{path}: not a readable Parquet file ({error}); {advice(path, error)}") from error


def _other_index(path: Path | str) -> UserError:
    return UserError(
        f"{path}: not the index that the manifest names: it is damaged, or belongs to another set; {advice(path)}"
    )


def _parsed_index(path: Path | str, content: bytes, expected: pa.Schema) -> pa.Table:
    try:
        table = read_parquet(content)
    except ParquetError as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); {advice(path, error, content)}") from error
    fault = column_fault(table, expected)
    if fault:
        raise UserError(f"{path}: {fault}")
    return table


def as_frame(table: pa.Table) -> pd.DataFrame:
    """Convert index rows to a DataFrame; integers stay integers where some are null."""
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get)
