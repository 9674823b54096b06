"""Checks of the values of an index whose bytes match its manifest: a set from elsewhere may be consistent and still
invalid.

After these checks rows can be used directly: every member is within its tar and no larger than its panel can be.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from hms_dist.core import limits
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.table import BOX_COLUMNS, FOLD_COUNTS, OFFSET_COLUMNS
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec

_IDS = ("eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id")
_FINGERPRINT = r"^[0-9]{1,18}-[0-9a-f]{8}$"


def column_fault(table: pa.Table, expected: pa.Schema) -> str | None:
    """Return the first expected column that is missing or of another type, else None. Further columns are allowed."""
    for field in expected:
        if field.name not in table.column_names:
            return f"column {field.name} is missing; not an index of a shard set"
        found = table.schema.field(field.name).type
        if found != field.type:
            return f"column {field.name} is {found}, expected {field.type}"
    return None


def member_fault(table: pa.Table, tar_bytes: list[int], panels: Mapping[str, PanelSpec]) -> str | None:
    """Return the first member whose byte range is impossible in tars of `tar_bytes`, else None."""
    shard = table["shard"]
    fault = _outside(table, "shard", 0, len(tar_bytes) - 1)
    if fault:
        return fault
    end_of_tar = pa.array(tar_bytes, pa.int64()).take(shard.combine_chunks())
    for member, spec in {JSON_MEMBER: None, **panels}.items():
        largest = limits.JSON_MEMBER_BYTES if spec is None else spec.most_member_bytes
        fault = (
            _outside(table, f"{member}.size", 1, largest)
            or _outside(table, f"{member}.offset", 0, limits.TAR_BYTES)
            or _outside(table, f"{member}.crc32", 0, 2**32 - 1)
        )
        if fault:
            return fault
        ends = pc.add(table[f"{member}.offset"], pc.cast(table[f"{member}.size"], pa.int64()))
        row = _first(pc.greater(ends, end_of_tar))
        if row is not None:
            return f"row {row}: {member} ends at byte {ends[row]}, its tar at {end_of_tar[row]}"
    return None


def row_fault(table: pa.Table, samples_per_tar: list[int], dataset: Dataset = HMS) -> str | None:
    """Return the first row with impossible ids, key, shard, offsets, votes or folds, else None."""
    return next(filter(None, _row_faults(table, samples_per_tar, dataset)), None)


def _row_faults(table: pa.Table, samples_per_tar: list[int], dataset: Dataset) -> Iterator[str | None]:
    yield from (_outside(table, name, 0, 2**63 - 1) for name in _IDS)
    yield from (_outside(table, name, 0, 1e18) for name in OFFSET_COLUMNS)
    ids = [pc.cast(table[name], pa.string()) for name in ("eeg_id", "eeg_sub_id")]
    row = _first(pc.fill_null(pc.not_equal(table["key"], pc.binary_join_element_wise(*ids, "-")), True))
    yield None if row is None else f"row {row}: its key is not <eeg_id>-<eeg_sub_id>"
    if pc.count_distinct(table["key"]).as_py() < len(table):
        yield "two rows have the same key"
    if sum(samples_per_tar) != len(table):
        yield f"expected {sum(samples_per_tar)} rows, the number of samples in the shards, found {len(table)}"
        return
    counted = np.repeat(np.arange(len(samples_per_tar)), samples_per_tar)
    yield None if np.array_equal(table["shard"], counted) else "column shard does not count the samples of each shard"
    for name in ("eeg_fingerprint", "spectrogram_fingerprint"):
        row = _first(pc.invert(pc.fill_null(pc.match_substring_regex(table[name], _FINGERPRINT), False)))
        yield None if row is None else f"row {row}, column {name}: expected <bytes>-<CRC-32>"
    yield _vote_fault(table, dataset)
    if dataset.signal == "audio":
        yield from (_outside(table, name, 0, 1e18, null=True) for name in BOX_COLUMNS)
    yield from (_outside(table, f"fold_of_{number}", 0, number - 1, null=True) for number in FOLD_COUNTS)


def _vote_fault(table: pa.Table, dataset: Dataset) -> str | None:
    total, first = None, table[dataset.vote_columns[0]]
    for name in dataset.vote_columns:
        if fault := _outside(table, name, 0, 2**31 - 1, null=True):
            return fault
        if dataset.target == "yes_no":
            continue
        if table[name].null_count not in (0, len(table)) or table[name].null_count != first.null_count:
            return f"column {name} is null in some of the rows"
        total = table[name] if total is None else pc.add(total, table[name])
    row = None if total is None else _first(pc.equal(total, 0))
    return None if row is None else f"row {row}: no votes at all; expected at least one"


def _outside(table: pa.Table, name: str, low: float, high: float, *, null: bool = False) -> str | None:
    """Return the first value of a column outside of two bounds (NaN is outside), else None."""
    column = table[name]
    if column.null_count and not null:
        return f"column {name}: {column.null_count} values are missing"
    within = pc.and_(pc.greater_equal(column, low), pc.less_equal(column, high))
    row = _first(pc.invert(within))
    return None if row is None else f"row {row}, column {name}: expected {low} to {high}, found {column[row]}"


def _first(mask: pa.ChunkedArray) -> int | None:
    """Index of the first true value; None without any."""
    place = pc.index(pc.fill_null(mask, False), True).as_py()
    return None if place < 0 else place
