"""Rendering of one shard in a worker process: label rows -> recordings -> panels -> samples -> tar."""

import errno
import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hms_dist.core.errors import JobError, UserError
from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.datasets import HMS, Dataset
from hms_dist.jobs.lease import LeaseHeld, acquire
from hms_dist.jobs.worker_processes import check_stop
from hms_dist.labels.table import sample_key
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording, RecordingReader
from hms_dist.rendering.build_spec import Note
from hms_dist.rendering.shard_plan import ShardPlan
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec, json_member, member_name, shard_name
from hms_dist.shards.writer import Rejected, Sample, lease_path, write_shard
from hms_dist.signals.quality import channel_quality, wrong_scale_uv


@dataclass(frozen=True)
class Work:
    """Input shared by all shards of a set, sent to each worker."""

    panels: Mapping[str, Panel]
    table: Path
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
    """Rows that could not be rendered. Without `skip_bad_rows` the shard was then not written."""
    taken_by: str | None = None
    """The other owner of the shard; None: it was rendered here."""


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
    panels: Mapping[str, Panel], prepared: Mapping[str, Any], window: Window, fields: Mapping[str, Any]
) -> Sample:
    """Render one label row: all panels drawn and encoded, and the json member (documented in shards/README.md)."""
    key = fields["key"]
    facts = {name: value for name, value in fields.items() if not name.endswith("fingerprint")}
    eeg = window.recording.eeg
    seen = eeg[window.start : window.start + WINDOW_SAMPLES]
    quality = channel_quality(seen)
    facts["quality"] = quality
    members = {JSON_MEMBER: (member_name(key, JSON_MEMBER), json_member(facts))}
    for name, panel in panels.items():
        spec = _spec(panel)
        members[name] = (member_name(key, name, spec), spec.encode(panel.draw(prepared[name], window)))
    return Sample(fields, members, num_samples=len(eeg), wrong_scale_uv=wrong_scale_uv(seen, quality))


@cache
def _spec(panel: Panel) -> PanelSpec:
    """The specification of a panel, computed once for all rows."""
    return panel.spec


def window_of(recording: Recording, fields: Mapping[str, Any]) -> Window:
    """Return the window of a label row. Raises UserError if the EEG is too short, or the spectrogram has none of its
    rows."""
    start = round(fields["eeg_label_offset_seconds"] * RATE_HZ)
    stop = start + WINDOW_SAMPLES
    if stop > len(recording.eeg):
        raise UserError(
            f"EEG {recording.eeg_id} has {len(recording.eeg)} samples, the 50 s window needs {start} to {stop}; "
            "check eeg_label_offset_seconds"
        )
    offset_s, end_s = fields["spectrogram_label_offset_seconds"], recording.spectrogram_time_s[-1]
    if offset_s > end_s:
        raise UserError(
            f"spectrogram {recording.spectrogram_id} ends at {end_s:g} s, the 10 minutes begin at {offset_s:g} s; "
            "check spectrogram_label_offset_seconds"
        )
    return Window(recording=recording, start=start, spectrogram_offset_s=offset_s)


def _render_rows(work: Work, rows: pd.DataFrame) -> Iterator[tuple[int, Sample | Rejected]]:
    """Yield samples with their table rows; each file is read, and each recording prepared, once."""
    reader = RecordingReader(data=work.data, split=work.split)
    recording: Recording | None = None
    prepared: dict[str, Any] = {}
    for row, values in zip(rows.index, rows.to_dict("records"), strict=True):
        fields = _fields(values, work.dataset.vote_columns)
        wanted = (fields["eeg_id"], fields["spectrogram_id"])
        try:
            if recording is None or (recording.eeg_id, recording.spectrogram_id) != wanted:
                recording = None
                fresh = reader.read(*wanted)
                prepared = {name: panel.prepare(fresh) for name, panel in work.panels.items()}
                recording = fresh
            window = window_of(recording, fields)
        except UserError as error:
            yield row, Rejected(fields["key"], row, str(error))
            continue
        for kind, number in zip(("eeg", "spectrogram"), wanted, strict=True):
            fields[f"{kind}_fingerprint"] = reader.fingerprints[f"{work.split}_{kind}s/{number}.parquet"]
        yield row, render_sample(work.panels, prepared, window, fields)


def _fields(values: Mapping[Hashable, Any], vote_columns: Sequence[str]) -> dict[str, Any]:
    """Index fields of a table row as plain Python values; votes are None where the table has none."""
    ids = {name: int(values[name]) for name in ("eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id")}
    offsets = {name: float(values[name]) for name in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds")}
    votes = {name: None if pd.isna(values[name]) else int(values[name]) for name in vote_columns}
    return {"key": sample_key(ids["eeg_id"], ids["eeg_sub_id"]), **ids, **offsets, **votes}
