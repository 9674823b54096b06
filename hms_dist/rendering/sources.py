"""Detection of recordings that changed since a set was rendered, and reuse of the unaffected shards."""

import zlib
from pathlib import Path

import numpy as np

from hms_dist.core import limits
from hms_dist.core.files import read_bytes
from hms_dist.rendering.build_spec import BuildSpec
from hms_dist.rendering.row_source import recording_files
from hms_dist.shards.index import Index, open_set
from hms_dist.shards.schema import MANIFEST_NAME
from hms_dist.shards.writer import part_path, write_part


def changed_shards(out: Path, data: Path, split: str) -> set[int]:
    """Numbers of the shards of a complete set with a changed or missing recording.

    A file of another size has changed; a file modified since the set was written is compared by CRC-32.
    """
    _, index = open_set(out)
    written = (out / MANIFEST_NAME).stat().st_mtime
    shards = index.ids("shard")
    changed: set[int] = set()
    files = recording_files(data, split, index.frame, index.dataset)
    for kind in dict.fromkeys(kind for kind, _ in files):
        ids = index.ids(f"{kind}_id")
        _, first = np.unique(ids, return_index=True)
        for row in first:
            fingerprint = index.frame[f"{kind}_fingerprint"].iloc[row]
            if not _is_same(files[kind, int(ids[row])], fingerprint, written):
                changed |= set(shards[ids == ids[row]].tolist())
    return changed


def keep_unchanged(out: Path, folder: Path, build_spec: BuildSpec, changed: set[int]) -> None:
    """Write parts into `folder` for the shards of the complete set `out` that need no rendering."""
    manifest, index = open_set(out)
    for number, entry in enumerate(manifest.files[: build_spec.num_shards]):
        if number not in changed:
            rows = _rows_of(index, number)
            note = {**build_spec.note, "file": entry, "rejected": []}
            write_part(part_path(folder, number), rows, note, build_spec.described)


def _rows_of(index: Index, number: int) -> list[dict[str, object]]:
    frame = index.frame[index.ids("shard") == number]
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def _is_same(path: Path, fingerprint: str, written: float) -> bool:
    size, _, crc = fingerprint.partition("-")
    try:
        state = path.stat()
    except OSError:
        return False
    if state.st_size != int(size):
        return False
    return state.st_mtime < written or f"{zlib.crc32(read_bytes(path, limits.PARQUET_BYTES)):08x}" == crc
