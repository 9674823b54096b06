"""Check of a shard set against its own manifest and index: every file, byte, name, value and key."""

import json
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import canonical_json, indented_json, read_bytes
from hms_dist.core.parquet import ParquetError, read_parquet
from hms_dist.core.parquet import num_rows as rows_of_footer
from hms_dist.core.plugins import MissingPluginError
from hms_dist.jobs.worker_processes import run_jobs
from hms_dist.labels.table import LabelTable
from hms_dist.rendering.build_spec import NEXT_FOLDER
from hms_dist.shards.fault import Fault, file_fault, size_fault
from hms_dist.shards.index import Index, as_frame, index_schema, index_table
from hms_dist.shards.index_check import index_faults, label_faults
from hms_dist.shards.index_values import column_fault, member_fault
from hms_dist.shards.manifest import Manifest, read_manifest, tar_names
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, MANIFEST_COPY_NAME, MANIFEST_NAME, REJECTED_NAME
from hms_dist.shards.tar_check import TarTask, tar_faults
from hms_dist.shards.writer import PARTS_FOLDER

MANIFEST_NAMES = (MANIFEST_NAME, MANIFEST_COPY_NAME)


def find_faults(folder: Path, *, labels: LabelTable | None = None, workers: int = 1) -> Iterator[Fault]:
    """Yield every fault of the set in `folder`. With `labels`, its rows are compared with the label table.

    Raises UserError if the set is unfinished, or if neither the manifest nor its copy is intact.
    """
    manifest, faults = read_either_manifest(folder)
    yield from faults
    for path in foreign_files(folder, manifest):
        if path.suffix == ".tar":  # a reader of all tars in the folder would include it
            yield Fault(path, "not in the manifest; remove it")
    tars = tar_names(manifest)
    damaged = [fault for entry in manifest.files[len(tars) :] if (fault := file_fault(folder, entry))]
    yield from damaged
    index = None
    if folder / INDEX_NAME not in [fault.path for fault in damaged]:
        index, senseless = _index_of(folder / INDEX_NAME, manifest)
        yield from senseless
    if index is not None:
        yield from index_faults(folder / INDEX_NAME, index, manifest)
        if labels is not None and not damaged:
            rejected = _rejected_keys(folder, manifest)
            yield from label_faults(folder / INDEX_NAME, index, labels.frame, labels.path, rejected)
    tasks = _tar_tasks(folder, manifest, index)
    for found in tqdm(run_jobs(tar_faults, tasks, workers), "verify", len(tasks), unit="shard", disable=None):
        yield from found


def find_size_faults(folder: Path) -> Iterator[Fault]:
    """Fast check: files that are missing, of another size or with other counts. Raises as `find_faults`."""
    manifest, faults = read_either_manifest(folder)
    yield from faults
    for entry in manifest.files:
        fault = size_fault(folder, entry)
        if fault:
            yield fault
        elif entry["name"].endswith(".parquet"):
            yield from _row_fault(folder / entry["name"], entry["num_samples"])


def read_either_manifest(folder: Path) -> tuple[Manifest, list[Fault]]:
    """Read the manifest, or its copy if it is damaged, and report the faults of both. Raises UserError as
    `find_faults`."""
    found: dict[str, Manifest] = {}
    faults: list[Fault] = []
    for name in MANIFEST_NAMES:
        path = folder / name
        try:
            manifest = read_manifest(folder, name)
            if not _is_as_written(read_bytes(path, limits.JSON_BYTES), manifest):
                raise UserError(f"{path}: not formatted as this program writes it")
            found[name] = manifest
        except MissingPluginError:
            raise
        except UserError as error:
            # The advice in the message is for read-only users.
            faults.append(Fault(path, str(error).removeprefix(f"{path}: ").partition(";")[0], damaged=True))
    unfinished = any((folder / name).exists() for name in (PARTS_FOLDER, NEXT_FOLDER))
    if not found or (MANIFEST_NAME not in found and unfinished):
        raise UserError(f"{faults[0]}; run hms-dist render, which keeps the finished shards")
    best = found.get(MANIFEST_NAME) or found[MANIFEST_COPY_NAME]
    if found.get(MANIFEST_COPY_NAME, best) != best:
        faults.append(Fault(folder / MANIFEST_COPY_NAME, f"is the copy of another {MANIFEST_NAME}", damaged=True))
    return best, faults


def _is_as_written(content: bytes, manifest: Manifest) -> bool:
    """Whether a manifest has the form of `Manifest.to_json`, with the fields of its own version."""
    value = json.loads(content)
    ordered = {name: json.loads(canonical_json(value[name])) for name in manifest.to_json() if name in value}
    return content == indented_json(ordered)


def foreign_files(folder: Path, manifest: Manifest) -> list[Path]:
    """Files in the folder that do not belong to the set, except hidden ones."""
    ours = {*MANIFEST_NAMES, *(entry["name"] for entry in manifest.files)}
    return sorted(path for path in folder.iterdir() if path.name not in ours and not path.name.startswith("."))


def _index_of(path: Path, manifest: Manifest) -> tuple[Index | None, list[Fault]]:
    """Read the index if its byte ranges are possible; otherwise return the faults."""
    try:
        table = index_table(path, manifest.dataset)
    except UserError as error:
        return None, [Fault(path, str(error).removeprefix(f"{path}: "))]
    tars = manifest.files[: len(tar_names(manifest))]
    fault = column_fault(table, index_schema([JSON_MEMBER, *manifest.panels], manifest.dataset)) or member_fault(
        table, [entry["num_bytes"] for entry in tars], manifest.panels
    )
    return (None, [Fault(path, fault)]) if fault else (Index(as_frame(table), str(path), manifest.dataset), [])


def _row_fault(path: Path, num_rows: int) -> Iterator[Fault]:
    try:
        found = rows_of_footer(path)
    except (OSError, ParquetError) as error:
        yield Fault(path, f"not a readable Parquet file ({error})", damaged=True)
        return
    if found != num_rows:
        yield Fault(path, f"expected {num_rows} rows, found {found}", damaged=True)


def _rejected_keys(folder: Path, manifest: Manifest) -> set[str]:
    if REJECTED_NAME not in [entry["name"] for entry in manifest.files]:
        return set()
    return set(read_parquet(folder / REJECTED_NAME, ["key"])["key"].to_pylist())


def _tar_tasks(folder: Path, manifest: Manifest, index: Index | None) -> list[TarTask]:
    tars = manifest.files[: len(tar_names(manifest))]
    if index is None:
        return [TarTask(folder, entry, manifest.panels, None, manifest.dataset) for entry in tars]
    by_shard = dict(iter(index.frame.groupby("shard")))
    none = index.frame.iloc[:0]
    return [
        TarTask(folder, entry, manifest.panels, by_shard.get(n, none), manifest.dataset) for n, entry in enumerate(tars)
    ]
