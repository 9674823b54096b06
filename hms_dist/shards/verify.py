"""Checking a shard set against its own manifest and index: every byte, name, shape and key."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hms_dist.errors import UserError
from hms_dist.files import sha256_of
from hms_dist.shards.index import Index, Manifest, read_index, read_manifest, tar_names
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, crc32, member_name


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check a shard set: sizes, hashes, tar structure, index offsets, checksums and decodability."""

    shards: Path
    """Folder of the shard set."""


def run(command: Verify) -> None:
    """The verb `verify`. Prints one line a fault; raises UserError with their number if there are any."""
    faults = list(find_faults(command.shards))
    for fault in faults:
        print(fault)
    if faults:
        raise UserError(f"{command.shards}: {len(faults)} faults; rerun hms-dist render into another folder")
    manifest = read_manifest(command.shards)
    print(f"{command.shards}: {manifest.num_samples} samples in {len(tar_names(manifest))} shards, no fault")


def find_faults(folder: Path) -> Iterator[str]:
    """One line a fault of the set in `folder`; nothing if it is whole. UserError without a readable manifest."""
    manifest = read_manifest(folder)
    damaged = set()
    for entry in tqdm(manifest.files, unit="file", disable=None):
        fault = _file_fault(folder / entry["name"], entry["num_bytes"], entry["sha256"])
        if fault:
            damaged.add(entry["name"])
            yield fault
    if INDEX_NAME in damaged:
        return
    index = read_index(folder / INDEX_NAME)
    if len(index) != manifest.num_samples:
        yield f"{folder / INDEX_NAME}: expected {manifest.num_samples} rows, found {len(index)}"
    for key in index.frame["key"][index.frame["key"].duplicated()]:
        yield f"{folder / INDEX_NAME}: key {key} stands twice"
    for number, name in enumerate(tar_names(manifest)):
        if name not in damaged:
            yield from _tar_faults(folder / name, index, np.flatnonzero(index.ids("shard") == number), manifest)


def _file_fault(path: Path, num_bytes: int, sha256: str) -> str | None:
    if not path.is_file():
        return f"{path}: missing"
    if path.stat().st_size != num_bytes:
        return f"{path}: expected {num_bytes} bytes, found {path.stat().st_size}"
    return None if sha256_of(path) == sha256 else f"{path}: sha256 differs; the file is damaged"


def _tar_faults(path: Path, index: Index, rows: np.ndarray, manifest: Manifest) -> Iterator[str]:
    """Compare a tar's own directory with the index, and decode every member."""
    try:
        with tarfile.open(path) as tar:
            found = {info.name: (info.offset_data, info.size) for info in tar}
    except tarfile.TarError as error:
        yield f"{path}: not a readable tar ({error})"
        return
    content = memoryview(path.read_bytes())
    for member in (JSON_MEMBER, *manifest.panels):
        spec = manifest.panels.get(member)
        places = index.member(member)
        for row in rows:
            name = member_name(index.frame["key"].iloc[row], member, spec)
            offset, size = int(places.offset[row]), int(places.size[row])
            if found.pop(name, None) != (offset, size):
                yield f"{path}: {name} is not at bytes {offset} to {offset + size}, as the index says"
                continue
            block = content[offset : offset + size]
            if crc32(block) != places.crc32[row]:
                yield f"{path}: {name} has another CRC-32 than the index says"
                continue
            if spec is not None:
                try:
                    spec.decode(block)
                except ValueError as error:
                    yield f"{path}: {name}: {error}"
    for name in found:
        yield f"{path}: {name} is not in the index"
