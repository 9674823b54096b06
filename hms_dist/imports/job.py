"""Import of one recording in a worker process: file -> EEG and spectrogram files, label rows, facts."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hms_dist.core.errors import JobError, UserError
from hms_dist.datasets import Dataset
from hms_dist.imports import rows as label_rows
from hms_dist.imports.events import bids_path, read_bids, read_csv_bi, read_rec
from hms_dist.imports.facts import Facts
from hms_dist.imports.key import Key
from hms_dist.imports.open_recording import opened
from hms_dist.imports.rows import Row, Texts
from hms_dist.imports.signal import Signal, SignalOptions
from hms_dist.imports.source import Event, Source
from hms_dist.imports.write_files import write_recording
from hms_dist.jobs.lease import Lease, LeaseHeld, acquire

LabelKind = Literal["table", "csv_bi", "rec", "events", "annotations", "none"]
SIDECARS: dict[str, tuple[Callable[[Path], Path], Callable[[Path], list[Event]]]] = {
    "csv_bi": (lambda path: path.with_suffix(".csv_bi"), read_csv_bi),
    "rec": (lambda path: path.with_suffix(".rec"), read_rec),
    "events": (bids_path, read_bids),
}
"""Kind of labels -> path of the file beside a recording, and its reader."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Options of all recordings, sent to each worker."""

    out: Path
    dataset: Dataset
    signal: SignalOptions
    truncated: Literal["fail", "keep"]
    every_s: float | None
    """Seconds between label rows; None: a row for each event."""
    background: str | None
    labelled: bool

    @property
    def split(self) -> str:
        """Prefix of the folders: unlabelled recordings are a test set."""
        return "train" if self.labelled else "test"


@dataclass(frozen=True, kw_only=True)
class ImportTask:
    """A recording to import."""

    work: Work
    number: int
    path: Path
    labels: LabelKind
    rows: Sequence[Row] = ()
    """Label rows of the table."""
    events: Sequence[Event] = ()
    """Events of the table."""
    note: str
    """Digest of everything that the result depends on."""


@dataclass(frozen=True)
class ImportResult:
    """Result of a task."""

    number: int
    fault: str | None = None
    """Why the recording was rejected; None: it was imported."""
    is_held: bool = False
    """Whether another process imports the recording."""


def import_recording(task: ImportTask) -> ImportResult:
    """Import one recording, unless another process does; its result in the key folder is written last.

    Raises Stopped on request, JobError if the disk is full.
    """
    key = Key(task.work.out)
    try:
        with acquire(key.file_lease(task.number)) as lease:
            return ImportResult(task.number) if is_done(key, task) else _import_recording(task, key, lease)
    except LeaseHeld:
        return ImportResult(task.number, is_held=True)


def is_done(key: Key, task: ImportTask) -> bool:
    """Whether a recording is imported, from the same file, labels and options."""
    result = key.result(task.number)
    return result is not None and result.get("note") == task.note


def _import_recording(task: ImportTask, key: Key, lease: Lease) -> ImportResult:
    from threadpoolctl import threadpool_limits

    remove_files(task.work.out, key, task.number)
    try:
        with threadpool_limits(1), opened(task.path, task.work.truncated) as source:
            result = _imported(task, source)
    except UserError as error:
        return ImportResult(task.number, str(error))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise JobError(
                f"{task.work.out}: no space left on the disk; free some and rerun the same command"
            ) from error
        raise
    if not lease.is_mine():  # this process was stopped for longer than a lease lives
        return ImportResult(task.number, is_held=True)
    key.write_result(task.number, {"note": task.note, **result})
    return ImportResult(task.number)


def remove_files(out: Path, key: Key, number: int) -> None:
    """Remove the files of a recording that was imported with other options; the record of its result goes first."""
    before = key.result(number)
    key.result_path(number).unlink(missing_ok=True)
    if before is None:
        return
    (out / f"{before['split']}_spectrograms/{number}.parquet").unlink(missing_ok=True)
    for eeg_id in {row["eeg_id"] for row in before["rows"]}:
        (out / f"{before['split']}_eegs/{eeg_id}.parquet").unlink(missing_ok=True)


def _imported(task: ImportTask, source: Source) -> dict[str, Any]:
    work, texts = task.work, Texts(task.work.dataset)
    signal = Signal(source, work.signal)
    facts = Facts(signal.montage.roots)
    rows = label_rows.inside(
        _rows(task, source, texts, signal.length_s), source.stretches, signal.length_s, work.dataset.annotated_s
    )
    written = write_recording(signal, rows, task.number, work.out, work.split, facts) if rows else []
    closure = signal.closure.worst_uv
    montage = signal.montage
    return {
        "split": work.split,
        "rows": [asdict(row) for row in written],
        "unknown_texts": dict(texts.unknown),
        "facts": {
            "format": task.path.suffix.lower().removeprefix("."),
            "length_s": round(signal.length_s, 3),
            "rates_hz": signal.rates_hz,
            "gaps": len(source.stretches) - 1,
            "gaps_s": round(signal.length_s - sum(part.length_s for part in source.stretches), 3),
            "num_channels": len(source.channels),
            "montage": "bipolar" if montage.is_bipolar else "referential",
            "reference": "not known" if montage.is_bipolar else montage.reference,
            "missing": list(montage.missing),
            "closure_uv": None if closure is None else round(closure, 3),
            "labels": task.labels,
            "num_rows": len(written),
            "num_unknown_texts": sum(texts.unknown.values()),
            "assumed": signal.notes,
            "warnings": facts.warnings(closure) if written else [_no_rows(task, source)],
            **facts.as_json(),
        },
    }


def _rows(task: ImportTask, source: Source, texts: Texts, length_s: float) -> list[Row]:
    work = task.work
    if task.labels == "table" and task.rows:
        return list(task.rows)
    centres = label_rows.grid(length_s, work.every_s or work.dataset.annotated_s, work.dataset.annotated_s)
    if task.labels == "none":
        unknown = (None,) * work.dataset.num_classes
        return [Row(float(centre), unknown) for centre in centres]
    events = _events(task, source)
    if work.every_s is None:
        events = [Event(event.start_s, min(event.end_s, length_s), event.text) for event in events]
        return label_rows.rows_of_events(events, work.dataset, texts)
    return label_rows.rows_by_overlap(events, centres, work.dataset, texts, work.background)


def _no_rows(task: ImportTask, source: Source) -> str:
    """Explain why a recording has no label rows."""
    if task.work.every_s is not None and task.labels in ("annotations", *SIDECARS):
        events = _events(task, source)
        if events and all(event.start_s == event.end_s for event in events):
            return "no label rows: its events have no duration; --every_s null makes a row of each"
    return "no label rows: not imported"


def _events(task: ImportTask, source: Source) -> Sequence[Event]:
    if task.labels == "table":
        return task.events
    if task.labels == "annotations":
        return source.events
    path_of, read = SIDECARS[task.labels]
    return read(path_of(task.path))
