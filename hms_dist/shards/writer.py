"""Writing one shard: samples in, a plain WebDataset tar and its index rows out, byte for byte repeatable."""

import hashlib
import json
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_dist.files import atomic
from hms_dist.shards.index import index_schema
from hms_dist.shards.schema import crc32

PARTS_FOLDER = ".parts"
"""Inside an unfinished set: the index rows of each finished shard, until the index is written."""


@dataclass(frozen=True)
class Sample:
    """One label row, rendered: its index fields (ids, votes, ...) and its members as bytes."""

    fields: Mapping[str, Any]
    members: Mapping[str, tuple[str, bytes]]
    """Member (a panel's name, or json) -> name inside the tar, bytes."""


def shard_name(number: int) -> str:
    """File name of shard `number`."""
    return f"shard-{number:06d}.tar"


def part_path(folder: Path, number: int) -> Path:
    """Where the index rows of shard `number` wait for the others."""
    return folder / PARTS_FOLDER / f"shard-{number:06d}.parquet"


def write_shard(folder: Path, number: int, samples: Iterable[Sample], note: Mapping[str, Any]) -> None:
    """Write a tar, then its part file; the part's existence means that the shard is done.

    `note` (config hash and the like) is kept in the part, beside size and sha256 of the tar. Members carry
    no time, owner or machine, so equal samples give equal bytes.
    """
    path = folder / shard_name(number)
    rows: list[dict[str, Any]] = []
    with atomic(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in samples:
            row = {**sample.fields, "shard": number}
            for member, (name, content) in sample.members.items():
                row |= _add(tar, member, name, content)
            rows.append(row)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    entry = {"name": path.name, "num_samples": len(rows), "num_bytes": path.stat().st_size, "sha256": sha256}
    _write_part(part_path(folder, number), rows, {**note, "file": entry})


def read_part(path: Path) -> tuple[pd.DataFrame, dict[str, Any]] | None:
    """Index rows and note of a part; None if it is absent or unreadable (then the shard is rendered again)."""
    try:
        table = pq.read_table(path)
        note = json.loads(table.schema.metadata[b"note"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return None
    return table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype()}.get), note


def _add(tar: tarfile.TarFile, member: str, name: str, content: bytes) -> dict[str, int]:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(content), 0, 0o444
    tar.addfile(info, BytesIO(content))
    padded = -(-len(content) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    fields = {"offset": tar.offset - padded, "size": len(content), "crc32": crc32(content)}
    return {f"{member}.{field}": value for field, value in fields.items()}


def _write_part(path: Path, rows: list[dict[str, Any]], note: Mapping[str, Any]) -> None:
    members = [name.removesuffix(".crc32") for name in rows[0] if name.endswith(".crc32")]
    schema = index_schema(members).with_metadata({"note": json.dumps(note)})
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as file:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
