"""`hms-dist finish`: complete a set whose shards are rendered. Rendering does this itself after the last shard."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from hms_dist.config.versions import with_bare_names
from hms_dist.core.environment import versions
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest
from hms_dist.core.logging import LOG
from hms_dist.jobs.lease import LeaseHeld, acquire, await_expiry
from hms_dist.rendering.build_spec import NEXT_FOLDER, BuildSpec, build_spec_of, is_complete, move_in
from hms_dist.shards.index import as_frame
from hms_dist.shards.manifest import Manifest
from hms_dist.shards.metadata_writer import file_entry, write_index, write_manifest, write_rejected
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, REJECTED_NAME, spec_from_json
from hms_dist.shards.unit_warnings import suspicions
from hms_dist.shards.writer import PARTS_FOLDER, Rejected, part_path, read_note, read_part

LEASE_NAME = ".finish.claim"


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Write index and manifest of a set whose shards are all rendered, for example in slices."""

    out: Path
    """Folder of the shard set, as given to render."""


def run(command: Finish) -> None:
    """Run the command `finish`. Raises UserError if shards are missing."""
    folder, build_spec = command.out / NEXT_FOLDER, build_spec_of(command.out / NEXT_FOLDER)
    if build_spec is None:  # no rebuild has begun
        folder, build_spec = command.out, build_spec_of(command.out)
    if build_spec is None:
        raise UserError(f"{command.out}: nothing to finish; run hms-dist render first")
    if folder == command.out and is_complete(folder) and not (folder / PARTS_FOLDER).exists():
        LOG.info("%s is complete already: nothing to do", command.out)
        return
    try:
        complete(command.out, folder, build_spec)
    except LeaseHeld as error:
        raise UserError(f"{command.out}: another job is finishing it ({error}); wait for it") from error


def num_open(folder: Path, num_shards: int) -> int:
    """Number of shards without a part."""
    return sum(not part_path(folder, number).exists() for number in range(num_shards))


def complete(out: Path, folder: Path, build_spec: BuildSpec) -> None:
    """Finish the set begun in `folder` and publish it in `out`, exactly once: slices may end at the same time.

    Resumes after a kill. Raises LeaseHeld while another job does this, UserError if a shard is missing.
    """
    with _alone(out):
        if is_complete(folder):  # the parts of a written set are removed last
            shutil.rmtree(folder / PARTS_FOLDER, ignore_errors=True)
        elif folder.is_dir():  # otherwise another job has published it
            finish(folder, build_spec)
        move_in(out)


def settle(out: Path) -> None:
    """Complete the publication of a finished set in `out` if a kill interrupted it.

    Raises UserError if another job is publishing it.
    """
    if not is_complete(out / NEXT_FOLDER):
        return
    try:
        with _alone(out):
            move_in(out)
    except LeaseHeld as error:
        raise UserError(f"{out}: another job is finishing it ({error}); wait for it") from error


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Exclude other jobs from finishing the set. Raises LeaseHeld if one does."""
    await_expiry(out / LEASE_NAME)
    with acquire(out / LEASE_NAME):
        yield


def rejected_rows(folder: Path, num_shards: int) -> list[Rejected]:
    """Read the rejected rows of the finished shards of a set that is being rendered into `folder`."""
    notes = [read_note(part_path(folder, number)) for number in range(num_shards)]
    return [Rejected(**row) for note in notes if note is not None for row in note["rejected"]]


def finish(folder: Path, build_spec: BuildSpec) -> None:
    """Write index, rejected rows and manifest from the parts of all shards, then remove the parts.

    Raises UserError if a shard is missing.
    """
    if missing := num_open(folder, build_spec.num_shards):
        raise UserError(f"{folder}: {missing} of {build_spec.num_shards} shards are missing; run render")
    _write(folder, build_spec)
    shutil.rmtree(folder / PARTS_FOLDER)


def _write(folder: Path, build_spec: BuildSpec) -> None:
    parts = [read_part(part_path(folder, number)) for number in range(build_spec.num_shards)]
    unreadable = [number for number, part in enumerate(parts) if part is None]
    if unreadable:
        raise UserError(f"{part_path(folder, unreadable[0])}: not readable; remove it and rerun hms-dist render")
    tables, notes = zip(*(part for part in parts if part is not None), strict=True)
    rows = as_frame(pa.concat_tables([table for table in tables if len(table)] or tables[:1]))
    rejected = [row for note in notes for row in note["rejected"]]
    members, seed = [JSON_MEMBER, *build_spec.panels], build_spec.render_config["seed"]
    write_index(folder / INDEX_NAME, rows, members, fold_seed=seed, dataset=build_spec.described)
    files = [note["file"] for note in notes] + [file_entry(folder / INDEX_NAME, len(rows))]
    if rejected:
        write_rejected(folder / REJECTED_NAME, rejected)
        files.append(file_entry(folder / REJECTED_NAME, len(rejected)))
    write_manifest(folder, _manifest(build_spec, rows, files, len(rejected)))
    if found := suspicions(rows, notes):
        LOG.warning("%s: %s", folder, "; ".join(found))
    _log_summary(folder, rows, files, len(rejected))


def _manifest(build_spec: BuildSpec, rows: pd.DataFrame, files: list[dict[str, Any]], num_rejected: int) -> Manifest:
    fingerprints = sorted({*rows["eeg_fingerprint"], *rows["spectrogram_fingerprint"]})
    sources: Mapping[str, Any] = {
        "table": {"name": build_spec.table, "sha256": build_spec.table_sha256},
        "split": build_spec.split,
        "num_recordings": int(rows["eeg_id"].nunique()),
        "num_rejected": num_rejected,
        "recordings_digest": digest(fingerprints),
    }
    return Manifest(
        num_samples=len(rows),
        files=tuple(files),
        panels={name: spec_from_json(spec) for name, spec in build_spec.panels.items()},
        render_config=with_bare_names(build_spec.render_config),
        sources=sources,
        versions=versions(),
        dataset=build_spec.described,
    )


def _log_summary(folder: Path, rows: pd.DataFrame, files: list[dict[str, Any]], num_rejected: int) -> None:
    num_bytes = sum(entry["num_bytes"] for entry in files)
    LOG.info(
        "%s: %d samples in %d shards, %.1f MB, %d rows rejected",
        folder, len(rows), sum(entry["name"].endswith(".tar") for entry in files), num_bytes / 1e6, num_rejected,
    )  # fmt: skip
