"""Repair of damaged files of a shard set, by rendering, or from its intact files.

A file is replaced only by the exact bytes that the manifest names, so a repair either succeeds or changes nothing.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from hms_dist.config.load import from_stored
from hms_dist.core.environment import versions
from hms_dist.core.errors import UserError
from hms_dist.core.files import sync
from hms_dist.core.logging import LOG
from hms_dist.jobs.lease import LeaseHeld, acquire
from hms_dist.jobs.worker_processes import check_stop, run_jobs
from hms_dist.labels.table import LabelTable
from hms_dist.rendering.find_faults import MANIFEST_NAMES, read_either_manifest
from hms_dist.rendering.recover import rows_of_tar
from hms_dist.rendering.render import RenderConfig
from hms_dist.rendering.render_shard import ShardTask, Work, render_shard
from hms_dist.rendering.row_source import open_source
from hms_dist.rendering.shard_plan import plan_shards
from hms_dist.shards.fault import Fault, file_fault
from hms_dist.shards.index import as_frame, rows_schema
from hms_dist.shards.manifest import Manifest, tar_names
from hms_dist.shards.metadata_writer import write_index, write_manifest, write_rejected
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, MANIFEST_NAME, REJECTED_NAME, shard_name
from hms_dist.shards.writer import PARTS_FOLDER, Rejected

SCRATCH_NAME = ".repair"
"""Folder inside the set for rebuilt files until they are verified."""


@dataclass(frozen=True)
class Repair:
    """A set under repair with an intact manifest."""

    folder: Path
    manifest: Manifest
    data: Path
    labels: LabelTable
    workers: int

    @property
    def scratch(self) -> Path:
        """Folder of rebuilt files."""
        return self.folder / SCRATCH_NAME

    @property
    def entries(self) -> Mapping[str, Mapping[str, Any]]:
        """Manifest entry of each file, by name."""
        return {entry["name"]: entry for entry in self.manifest.files}


def repair(folder: Path, faults: Iterable[Fault], *, data: Path, labels: LabelTable, workers: int) -> list[str]:
    """Rebuild the damaged files of a set; return a line for each file that differs from before, with the likely reason.

    Raises UserError if another process is repairing the set, or a recording needed for a damaged index cannot be read.
    """
    names = {fault.path.name for fault in faults if fault.damaged}
    with _alone(folder), _scratch(folder):
        manifest, _ = read_either_manifest(folder)
        if names & set(MANIFEST_NAMES):
            write_manifest(folder, manifest)
        job = Repair(folder, manifest, data, labels, workers)
        lost = _render_damaged(job, names)
        lines = _put_in_place(job, names - {INDEX_NAME}, lost)
        if INDEX_NAME in names and not lines:
            _make_index(job)
            lines = _put_in_place(job, {INDEX_NAME}, lost)
        return lines


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    try:
        with acquire(folder / f"{SCRATCH_NAME}.claim"):
            yield
    except LeaseHeld as error:
        raise UserError(f"{folder}: is being repaired already ({error}); wait for it") from error


@contextmanager
def _scratch(folder: Path) -> Iterator[None]:
    """The empty scratch folder; remains of a killed repair are removed."""
    scratch = folder / SCRATCH_NAME
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        (scratch / PARTS_FOLDER).mkdir(parents=True)
        yield
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _render_damaged(job: Repair, names: set[str]) -> dict[str, str]:
    """Render damaged shards into the scratch folder and, if rejected.parquet is damaged, the shards with rejected rows.

    Returns, by name, the reason why a shard now lacks more rows than before.
    """
    recipe = from_stored(RenderConfig, job.manifest.render_config, str(job.folder / MANIFEST_NAME))
    plans = plan_shards(job.labels.frame, recipe.samples_per_shard, recipe.seed)
    missing = {
        plan.number: len(plan.rows) - job.entries[name]["num_samples"]
        for name, plan in zip(tar_names(job.manifest), plans, strict=False)
    }
    remake = REJECTED_NAME in names
    wanted = [plans[n] for n, count in missing.items() if shard_name(n) in names or (remake and count)]
    split = job.manifest.sources["split"]
    work = Work(recipe.panels, job.data, split, job.scratch, {}, skip_bad_rows=True, dataset=job.manifest.dataset)
    tasks = [ShardTask(work, plan, job.labels.frame.iloc[list(plan.rows)]) for plan in wanted]
    rejected: dict[int, tuple[Rejected, ...]] = {}
    for outcome in run_jobs(render_shard, tasks, job.workers):
        LOG.info("rendered %s again", shard_name(outcome.task.plan.number))
        rejected[outcome.task.plan.number] = outcome.rejected
    if remake:
        in_order = [asdict(row) for number in sorted(rejected) for row in rejected[number]]
        write_rejected(job.scratch / REJECTED_NAME, in_order)
    return {shard_name(n): rows[0].reason for n, rows in rejected.items() if len(rows) > missing[n]}


def _make_index(job: Repair) -> None:
    """Write the index into the scratch folder, from the tars, and from the recordings for their fingerprints."""
    found = dict(run_jobs(_Recover(job), range(len(tar_names(job.manifest))), job.workers))
    rows = [row for number in sorted(found) for row in found[number]]
    members = [JSON_MEMBER, *job.manifest.panels]
    seed, dataset = job.manifest.render_config["seed"], job.manifest.dataset
    table = pa.Table.from_pylist(rows, schema=rows_schema(members, dataset))
    write_index(job.scratch / INDEX_NAME, as_frame(table), members, fold_seed=seed, dataset=dataset)


@dataclass(frozen=True)
class _Recover:
    """Maps a shard number to itself and its index rows. A class, because it is sent to worker processes."""

    job: Repair

    def __call__(self, number: int) -> tuple[int, list[dict[str, Any]]]:
        job = self.job
        rows = rows_of_tar(job.folder / shard_name(number), number)
        split = job.manifest.sources["split"]
        source = open_source(job.data, split, job.manifest.dataset)
        for row in sorted(rows, key=lambda row: (row["spectrogram_id"], row["eeg_id"])):
            check_stop()
            source.read(row)
            row.update(source.fingerprints(row))
        return number, rows


def _put_in_place(job: Repair, names: set[str], lost: Mapping[str, str]) -> list[str]:
    """Move files that match the manifest from the scratch folder into the set; return a line for each other file."""
    lines = []
    for name in sorted(names & set(job.entries)):
        fault = file_fault(job.scratch, job.entries[name])
        if fault is None and not (job.folder / name).is_dir():
            (job.scratch / name).replace(job.folder / name)
        else:
            lines.append(f"{job.folder / name}: rebuilt, but not restored; {_reason(job, name, lost)}")
    sync(job.folder)
    return lines


def _reason(job: Repair, name: str, lost: Mapping[str, str]) -> str:
    """Most likely reason why a file cannot be reproduced."""
    if (job.folder / name).is_dir():
        return "a folder is in its place; remove it"
    if job.labels.fingerprint != job.manifest.sources["table"]["sha256"]:
        return f"{job.labels.path} is not the table of this set"
    if name in lost:
        return lost[name]
    here, then = versions(), job.manifest.versions
    other = [name for name in then if here.get(name) != then[name]]
    if other:
        changes = [f"{name} is {here.get(name, 'absent')}, was {then[name]}" for name in other]
        return f"software differs: {', '.join(changes)}"
    return f"recordings in {job.data} have changed, or this processor computes otherwise"
