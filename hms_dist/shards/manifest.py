"""Writing what describes a shard set: the index, then the manifest, whose existence means that the set is complete."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_dist.files import atomic, sha256_of, write_json
from hms_dist.shards.index import Manifest, index_schema
from hms_dist.shards.schema import MANIFEST_NAME


def write_index(path: Path, rows: pd.DataFrame, members: Sequence[str]) -> None:
    """Write index rows (columns of `index_schema`) as Parquet, atomically; equal rows give equal bytes."""
    table = pa.Table.from_pandas(rows, schema=index_schema(members), preserve_index=False)
    with atomic(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def file_entry(path: Path, num_samples: int) -> dict[str, Any]:
    """The manifest's entry of one file."""
    return {
        "name": path.name,
        "num_samples": num_samples,
        "num_bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a finished shard set, atomically."""
    write_json(folder / MANIFEST_NAME, manifest.to_json())
