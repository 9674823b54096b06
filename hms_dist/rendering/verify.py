"""The command `verify`: check a shard set and optionally repair it.

Checking needs only the set, repair needs rendering; this module combines the two.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.labels.table import LabelTable
from hms_dist.recordings.label_rows import read_rows
from hms_dist.rendering.find_faults import find_faults, find_size_faults, foreign_files, read_either_manifest
from hms_dist.shards.fault import Fault
from hms_dist.shards.manifest import tar_names


@dataclass(frozen=True, kw_only=True)
class Verify:
    """Check a shard set: sizes, hashes, tar structure, index, checksums, values, and the labels if DATA is given.

    Prints one line per fault and exits with 2 if there is any.
    """

    shards: Path
    """Folder of the shard set."""
    data: Path | None = None
    """Folder that the set was rendered from. None: labels are not compared, and repair is not possible."""
    table: Path | None = None
    """Label table. None: DATA/train.csv or DATA/test.csv, according to the set's split."""
    fast: bool = False
    """Compare sizes and counts only, without reading the shards."""
    repair: bool = False
    """Rebuild damaged files, byte for byte, from the manifest's recipe and DATA."""
    workers: int = 1
    """Number of processes for checking or rendering."""

    def __post_init__(self) -> None:
        if self.fast and (self.repair or self.data):
            raise ValueError("fast: looks at sizes and counts only; leave out --repair and --data")
        if self.data is None and (self.repair or self.table):
            raise ValueError("data: needed to repair and to compare labels; give the folder of the recordings")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")


def run(command: Verify) -> None:
    """Run the command `verify`. Prints one line per fault; raises UserError with the number of remaining ones."""
    manifest, _ = read_either_manifest(command.shards)
    labels = None
    if command.data:
        labels = read_rows(command.data, manifest.sources["split"], manifest.dataset, command.table)
    faults = _shown(_find(command, labels))
    if command.repair and command.data and labels and any(fault.damaged for fault in faults):
        from hms_dist.rendering.repair import repair

        for line in repair(command.shards, faults, data=command.data, labels=labels, workers=command.workers):
            print(line)
        faults = _shown(_find(command, labels))
    for path in foreign_files(command.shards, manifest):
        LOG.warning("%s: not part of this set; left in place", path)
    if faults:
        advice = (
            "everything that can be rebuilt was" if command.repair else "--repair --data DIR rebuilds damaged files"
        )
        raise UserError(f"{command.shards}: {len(faults)} faults; {advice}")
    extent = "labels as in the table" if labels else "sizes and counts" if command.fast else "labels not compared"
    print(f"{command.shards}: {manifest.num_samples} samples in {len(tar_names(manifest))} shards, no fault ({extent})")


def _find(command: Verify, labels: LabelTable | None) -> Iterator[Fault]:
    if command.fast:
        return find_size_faults(command.shards)
    return find_faults(command.shards, labels=labels, workers=command.workers)


def _shown(faults: Iterator[Fault]) -> list[Fault]:
    shown = []
    for fault in faults:
        print(fault, flush=True)
        shown.append(fault)
    return shown
