"""Plan of an import: the recordings, their patients, the labels of each, and those that are imported already."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, open_file
from hms_dist.imports.edf_header import read_header
from hms_dist.imports.job import SIDECARS, ImportTask, LabelKind, Work
from hms_dist.imports.key import Key, KeyRow
from hms_dist.imports.mne_files import parts_of
from hms_dist.imports.open_recording import EDF_SUFFIXES, SUFFIXES
from hms_dist.imports.patients import numbered, patient_of
from hms_dist.imports.table import FileLabels

MOST_RECORDINGS = 1_000_000
"""Most recordings of a data folder."""


@dataclass(frozen=True)
class Plan:
    """Recordings to import, in the order of their numbers."""

    tasks: list[ImportTask]
    """All recordings, imported or not."""
    key: list[KeyRow]
    faults: dict[int, str]
    """Number -> why the recording is rejected already."""


def find_recordings(data: Path) -> list[str]:
    """Return paths of the recordings below a folder, or the name of a single file. Raises UserError for none."""
    if data.is_file():
        return [data.name]
    if not data.is_dir():
        raise UserError(f"{data}: no such file or folder; expected recordings ({', '.join(SUFFIXES)})")
    found = sorted(
        path.relative_to(data).as_posix()
        for path in data.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise UserError(f"{data}: no recordings; expected names ending in {', '.join(SUFFIXES)}")
    if len(found) > MOST_RECORDINGS:
        raise UserError(
            f"{data}: expected at most {MOST_RECORDINGS} recordings, found {len(found)}; import parts of it"
        )
    return found


def plan_import(
    data: Path, recordings: Sequence[str], work: Work, key: Key, *, labels: str, table: Mapping[str, FileLabels],
    patient: str,
) -> Plan:  # fmt: skip
    """Number recordings and patients (those of the key keep theirs) and choose the labels of each recording.

    Raises UserError if recordings of the key are missing. Faults of single recordings are part of the plan.
    """
    before = {row.file: row for row in key.rows()}
    found = set(recordings)
    lost = [name for name in before if name not in found]
    if lost:
        raise UserError(
            f"{key.folder}: {len(lost)} recordings of the earlier import are missing, such as '{lost[0]}'; restore "
            "them, or import everything again with --rebuild"
        )
    root = data.parent if data.is_file() else data
    texts, starts, faults = {}, {}, {}
    for name in recordings:
        header = _LazyHeader(root / name)
        in_table = table[name].patient if name in table else ""
        try:
            texts[name] = patient_of(patient, name, in_table, header.patient, alone=len(recordings) == 1)
            starts[name] = header.start()
        except UserError as error:
            faults[name] = f"{root / name}: {error}"
            texts[name] = starts[name] = ""
    numbers = _numbers(recordings, before)
    patients = numbered(texts, {row.patient: row.patient_id for row in before.values()})
    rows = [KeyRow(numbers[name], name, patients[texts[name]], texts[name], starts[name]) for name in recordings]
    tasks = [_task(root / name, numbers[name], work, labels, table.get(name)) for name in recordings]
    return Plan(tasks, rows, {numbers[name]: fault for name, fault in faults.items()})


class _LazyHeader:
    """Patient and start in the header of an EDF file, read when needed; empty for other formats."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: tuple[str, str] | None = None

    def patient(self) -> str:
        """Code of the patient."""
        return self._read()[0]

    def start(self) -> str:
        """Date and time of the start."""
        return self._read()[1]

    def _read(self) -> tuple[str, str]:
        if self._found is None:
            self._found = ("", "")
            if self._path.suffix.lower() in EDF_SUFFIXES:
                try:
                    with open_file(self._path) as file:
                        header = read_header(file)
                except OSError as error:
                    raise UserError(f"cannot read this file ({error.strerror}); check its permissions") from error
                self._found = header.patient, header.start
        return self._found


def _numbers(recordings: Sequence[str], before: Mapping[str, KeyRow]) -> dict[str, int]:
    numbers = {name: row.number for name, row in before.items()}
    last = max(numbers.values(), default=0)
    for name in recordings:
        if name not in numbers:
            last += 1
            numbers[name] = last
    return numbers


def _task(path: Path, number: int, work: Work, labels: str, table: FileLabels | None) -> ImportTask:
    kind: LabelKind = _kind(path, labels)
    rows, events = ((), ()) if table is None else (table.rows, table.events)
    facts: list[Any] = [_state(path), kind, [asdict(row) for row in rows], [asdict(event) for event in events]]
    beside = [SIDECARS[kind][0](path)] if kind in SIDECARS else []
    facts += [_state(part) for part in [*beside, *parts_of(path)]]
    return ImportTask(work=work, number=number, path=path, labels=kind, rows=rows, events=events, note=digest(facts))


def _kind(path: Path, labels: str) -> LabelKind:
    if labels in ("none", "annotations", "table"):
        return labels  # type: ignore[return-value]
    kinds = [kind for kind in SIDECARS if labels in ("auto", kind)]
    for kind in kinds:
        if SIDECARS[kind][0](path).is_file():
            return kind  # type: ignore[return-value]
    if labels == "auto":
        return "annotations"
    raise UserError(f"{path}: expected {SIDECARS[labels][0](path).name} beside it; add it, or choose other --labels")


def _state(path: Path) -> list[int]:
    try:
        state = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror}); check its permissions") from error
    return [state.st_size, state.st_mtime_ns]
