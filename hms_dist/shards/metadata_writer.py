"""Writers of the index and, last, of the manifest, whose existence means that the set is complete."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from hms_dist.core.files import atomic, sha256_of, write_json
from hms_dist.datasets import HMS, Dataset
from hms_dist.shards.folds import with_folds
from hms_dist.shards.index import index_schema
from hms_dist.shards.manifest import Manifest
from hms_dist.shards.schema import MANIFEST_COPY_NAME, MANIFEST_NAME


def write_index(
    path: Path, rows: pd.DataFrame, members: Sequence[str], *, fold_seed: int, dataset: Dataset = HMS
) -> None:
    """Write index rows (columns of `rows_schema`) and their folds as Parquet, atomically and reproducibly."""
    rows, schema = with_folds(rows, fold_seed, dataset), index_schema(members, dataset)
    table = pa.Table.from_pandas(rows, schema=schema, preserve_index=False)
    with atomic(path) as file:
        pq.write_table(table.replace_schema_metadata(None), file, compression="zstd")


def write_rejected(path: Path, rejected: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows that could not be rendered (key, row in the label table from 0, reason) as Parquet, atomically."""
    frame = pd.DataFrame(list(rejected), columns=["key", "row", "reason"])
    with atomic(path) as file:
        frame.to_parquet(file, index=False)


def file_entry(path: Path, num_samples: int) -> dict[str, Any]:
    """Build the manifest entry of a file."""
    return {
        "name": path.name,
        "num_samples": num_samples,
        "num_bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the copy of the manifest, then the manifest, each atomically."""
    for name in (MANIFEST_COPY_NAME, MANIFEST_NAME):
        write_json(folder / name, manifest.to_json())
