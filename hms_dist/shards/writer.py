"""Writer of one shard: a plain WebDataset tar and its index rows, reproducible byte for byte."""

import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic, parse_json
from hms_dist.core.parquet import read_table, write_table
from hms_dist.datasets import HMS, Dataset
from hms_dist.shards.index import rows_schema
from hms_dist.shards.metadata_writer import file_entry
from hms_dist.shards.schema import crc32, member_order, shard_name
from hms_dist.shards.unit_warnings import SIGNALS_KEY, signal_facts

PARTS_FOLDER = ".parts"
"""Folder in an unfinished set: the index rows of each finished shard, until the index is written."""


@dataclass(frozen=True)
class Sample:
    """One rendered label row: its index fields (ids, votes, ...) and its encoded members."""

    fields: Mapping[str, Any]
    members: Mapping[str, tuple[str, bytes]]
    """Member (a panel's name, or json) -> name inside the tar, bytes."""
    num_samples: int = 0
    """Number of samples in its EEG file."""
    wrong_scale_uv: float | None = None
    """Its amplitude if the unit seems wrong, else None."""


@dataclass(frozen=True)
class Rejected:
    """A label row that could not be rendered."""

    key: str
    row: int
    """Row in the label table, from 0."""
    reason: str


def part_path(folder: Path, number: int) -> Path:
    """Path of the index rows of shard `number`, until the index is written."""
    return folder / PARTS_FOLDER / f"shard-{number:06d}.parquet"


def lease_path(folder: Path, number: int) -> Path:
    """Path of the lease of shard `number`."""
    return folder / PARTS_FOLDER / f"shard-{number:06d}.claim"


def write_shard(
    folder: Path,
    number: int,
    samples: Iterable[Sample],
    note: Mapping[str, Any],
    rejected: Sequence[Rejected] = (),
    dataset: Dataset = HMS,
) -> None:
    """Write a tar, then its part file, whose existence means that the shard is finished.

    `note` (configuration hash etc.) is stored in the part, together with the rejected rows and the size and SHA-256 of
    the tar. Members carry no time, owner or machine, so equal samples give equal bytes.
    """
    path = folder / shard_name(number)
    for leftover in folder.glob(f".{path.name}.*.tmp"):  # left by a killed job; this job holds the lease now
        leftover.unlink()
    rows: list[dict[str, Any]] = []
    signals: list[tuple[int, int, float | None]] = []
    with atomic(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            row = {**sample.fields, "shard": number}
            for member in member_order(sample.members):
                row |= _add(tar, member, *sample.members[member])
            rows.append(row)
            signals.append((row["eeg_id"], sample.num_samples, sample.wrong_scale_uv))
    note = {
        **note,
        SIGNALS_KEY: signal_facts(signals),
        "file": file_entry(path, len(rows)),
        "rejected": [asdict(row) for row in rejected],
    }
    write_part(part_path(folder, number), rows, note, dataset)


def read_part(path: Path) -> tuple[pa.Table, dict[str, Any]] | None:
    """Read the index rows and note of a part; None if it is missing or damaged (the shard is then rendered again)."""
    try:
        table = read_table(path)
        return table.replace_schema_metadata(None), parse_json(table.schema.metadata[b"note"])
    except (UserError, OSError, KeyError, TypeError, ValueError):
        return None


def read_note(path: Path) -> dict[str, Any] | None:
    """Read the note of a part without its rows; None as `read_part`."""
    part = read_part(path)
    return None if part is None else part[1]


def member_info(name: str, size: int) -> tarfile.TarInfo:
    """Header of a member: name and size, without time, machine or owner."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, 0, 0o444
    return info


def _add(tar: tarfile.TarFile, member: str, name: str, content: bytes) -> dict[str, int]:
    tar.addfile(member_info(name, len(content)), BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    fields = {"offset": tar.offset - padded, "size": len(content), "crc32": crc32(content)}
    return {f"{member}.{field}": value for field, value in fields.items()}


def write_part(path: Path, rows: list[dict[str, Any]], note: Mapping[str, Any], dataset: Dataset = HMS) -> None:
    """Write index rows and note of a finished shard, atomically."""
    members = [name.removesuffix(".crc32") for name in rows[0] if name.endswith(".crc32")] if rows else []
    schema = rows_schema(members, dataset).with_metadata({"note": json.dumps(note)})
    write_table(path, pa.Table.from_pylist(rows, schema=schema))
