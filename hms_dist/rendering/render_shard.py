"""Rendering of one shard in a worker process: label rows -> recordings -> panels -> samples -> tar."""

import errno
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hms_dist.core.errors import JobError, UserError
from hms_dist.datasets import HMS, Dataset
from hms_dist.jobs.lease import LeaseHeld, acquire
from hms_dist.jobs.worker_processes import check_stop
from hms_dist.panels.panel import Panel
from hms_dist.rendering.build_spec import Note
from hms_dist.rendering.row_source import RowSource, index_fields, open_source
from hms_dist.rendering.shard_plan import ShardPlan
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec, json_member, member_name, shard_name
from hms_dist.shards.writer import Rejected, Sample, lease_path, write_shard


@dataclass(frozen=True)
class Work:
    """Input shared by all shards of a set, sent to each worker."""

    panels: Mapping[str, Panel]
    data: Path
    split: Literal["train", "test"]
    out: Path
    note: Note
    skip_bad_rows: bool
    dataset: Dataset = HMS


@dataclass(frozen=True)
class ShardTask:
    """A shard to render: its plan and its rows of the label table, with their row numbers."""

    work: Work
    plan: ShardPlan
    rows: pd.DataFrame


@dataclass(frozen=True)
class ShardResult:
    """Result of rendering a shard."""

    task: ShardTask
    rejected: tuple[Rejected, ...] = ()
    """Rows that could not be rendered. If there are any, the shard is written only with `skip_bad_rows`."""
    taken_by: str | None = None
    """The job that holds the shard; None: it was rendered here."""


def render_shard(task: ShardTask) -> ShardResult:
    """Render and write one shard, unless another job holds it. Uses one BLAS thread, so that bytes are reproducible.

    Raises Stopped between rows on request, JobError if the disk is full.
    """
    from threadpoolctl import threadpool_limits

    work, number = task.work, task.plan.number
    try:
        with acquire(lease_path(work.out, number)) as held, threadpool_limits(1):
            samples: dict[int, Sample] = {}
            rejected: list[Rejected] = []
            for row, made in _render_rows(work, task.rows):
                check_stop()
                if isinstance(made, Sample):
                    samples[row] = made
                else:
                    rejected.append(made)
            if rejected and not work.skip_bad_rows:
                return ShardResult(task, tuple(rejected))
            if not held.is_mine():
                return ShardResult(task, taken_by="another job, after this one's lease expired")
            in_order = (samples[row] for row in task.plan.tar_order if row in samples)
            write_shard(work.out, number, in_order, work.note, rejected, work.dataset)
            return ShardResult(task, tuple(rejected))
    except LeaseHeld as error:
        return ShardResult(task, taken_by=str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobError(
                f"{work.out / shard_name(number)}: no space left on the disk; free some and rerun the same command"
            ) from error
        raise


def probe(task: ShardTask) -> tuple[float, int]:
    """Measure seconds and bytes of the task's first row, drawn twice because the first drawing compiles.

    Returns (0, 0) if the row cannot be rendered.
    """
    first = task.rows.head(1)
    seconds, made = 0.0, None
    for _ in range(2):
        started = time.perf_counter()
        (_, made), *_ = _render_rows(task.work, first)
        seconds = time.perf_counter() - started
    if not isinstance(made, Sample):
        return 0.0, 0
    return seconds, sum(len(content) for _, content in made.members.values())


def render_sample(
    panels: Mapping[str, Panel], prepared: Mapping[str, Any], window: Any, fields: Mapping[str, Any], source: RowSource
) -> Sample:
    """Render one label row: all panels drawn and encoded, and the json member (documented in shards/README.md)."""
    key = fields["key"]
    facts = {name: value for name, value in fields.items() if not name.endswith("fingerprint")}
    facts["quality"], num_samples, wrong_scale = source.quality(window)
    members = {JSON_MEMBER: (member_name(key, JSON_MEMBER), json_member(facts))}
    for name, panel in panels.items():
        spec = _spec(panel)
        members[name] = (member_name(key, name, spec), spec.encode(panel.draw(prepared[name], window)))
    return Sample(fields, members, num_samples=num_samples, wrong_scale_uv=wrong_scale)


@cache
def _spec(panel: Panel) -> PanelSpec:
    """The specification of a panel, computed once for all rows."""
    return panel.spec


def _render_rows(work: Work, rows: pd.DataFrame) -> Iterator[tuple[int, Sample | Rejected]]:
    """Yield samples with their table rows; each file is read, and each recording prepared, once."""
    source = open_source(work.data, work.split, work.dataset)
    recording: Any = None
    last: tuple[int, int] | None = None
    prepared: dict[str, Any] = {}
    for row, values in zip(rows.index, rows.to_dict("records"), strict=True):
        fields = index_fields(values, work.dataset)
        wanted = (fields["eeg_id"], fields["spectrogram_id"])
        try:
            if last != wanted:
                last = None
                recording = source.read(fields)
                prepared = {name: panel.prepare(recording) for name, panel in work.panels.items()}
                last = wanted
            window = source.window(recording, fields)
        except UserError as error:
            yield row, Rejected(fields["key"], row, str(error))
            continue
        fields |= source.fingerprints(fields)
        yield row, render_sample(work.panels, prepared, window, fields, source)
