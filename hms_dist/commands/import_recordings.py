"""The command `import`: EDF, BDF, BrainVision, FIF and MATLAB recordings with labels into Kaggle's folder layout."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from hms_dist.config.safe_yaml import read_yaml
from hms_dist.core.errors import JobError, UserError, one_of
from hms_dist.core.logging import LOG
from hms_dist.datasets import DATASET_NAME, Dataset, dataset_of, read_dataset
from hms_dist.imports.finish import Imported, collect, table_path, write_label_table, write_tables
from hms_dist.imports.job import SIDECARS, ImportTask, Work, import_recording, is_done, remove_files
from hms_dist.imports.key import TEXTS_NAME, Key
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.patients import AUTO, check_rule
from hms_dist.imports.plan import Plan, find_recordings, plan_import
from hms_dist.imports.rows import ABSENT, Texts
from hms_dist.imports.sharing import import_shared, joined, locked
from hms_dist.imports.table import FileLabels, match_files, read_label_table
from hms_dist.imports.write_files import make_folders
from hms_dist.jobs.worker_processes import run_jobs

_SOURCES = ("auto", "annotations", *SIDECARS, "none")


@dataclass(frozen=True, kw_only=True)
class Import(ReadingOptions):
    """Import recordings into OUT in Kaggle's layout: 20 channels, 200 Hz, microvolts, with 10-minute spectrograms.

    Names of files and patients, dates and texts of annotations go to OUT.key alone. Rerun the same command after a
    kill: imported recordings are kept. Any number of processes may run it at once, also on several hosts.
    """

    data: Path
    """Folder of recordings, searched with its subfolders (.edf, .bdf, .mat; .vhdr, .fif, .set and more by mne), or one
    file."""
    out: Path
    """Folder to write; created if missing. OUT.key beside it links its numbers to files and patients."""
    dataset: Path | None = None
    """Description of classes and label texts (.yaml). None: DATA/dataset.yaml; if missing, the classes of HMS."""
    labels: str = "auto"
    """Labels: a table (.csv), annotations (of the files), events (BIDS events.tsv), csv_bi (TUSZ), rec (TUEV), none
    (writes a test set), or auto: a csv_bi, rec or events file beside the recording, else its annotations."""
    every_s: float | None = 10.0
    """Seconds between label rows, each labelled by the class that covers most of it. None: a row for each event."""
    background: str | None = None
    """Class of what no event covers; absent: no class (target yes_no). None: it gets no rows."""
    patient: str = AUTO
    """Patients: column of the label table, or header (auto); table, header, folder, file (a patient for each), or a
    regular expression with one group, matched with the path."""
    on_error: Literal["fail", "skip"] = "fail"
    """A recording that cannot be imported: stop, or leave it out and list it in the report."""
    workers: int = 1
    """Number of processes; it does not affect the files."""
    pictures: int = 3
    """Number of windows that the report shows; 0: none."""
    rebuild: bool = False
    """Import everything again, into a folder that holds another import."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.name in ("", "..") or "\0" in str(self.out):
            raise ValueError(
                f"out: expected a folder with a name, which OUT.key beside it gets too, found '{self.out}'"
            )
        if self.out.resolve() == self.data.resolve():
            raise ValueError(f"out: {self.out} holds the recordings (--data); choose another folder")
        if self.workers < 1:
            raise ValueError(f"workers: expected at least 1, found {self.workers}")
        if self.pictures < 0:
            raise ValueError(f"pictures: expected at least 0, found {self.pictures}")
        if self.every_s is not None and not 0.1 <= self.every_s <= 3600:
            raise ValueError(f"every_s: expected 0.1 to 3600, found {self.every_s:g}")
        if self.labels not in _SOURCES and not self.labels.endswith(".csv"):
            raise ValueError(
                f"labels: expected a table ending in .csv, or one of {', '.join(_SOURCES)}, found '{self.labels[:80]}'"
            )
        check_rule(self.patient)


def run(command: Import) -> None:
    """Run the command `import`. Raises UserError for invalid input, naming the file."""
    imported_set(command)


def imported_set(command: Import) -> Work:
    """Import recordings; return what describes the set. Raises UserError for invalid input, naming the file."""
    dataset = _dataset(command)
    work = _work(command, dataset)
    recordings = find_recordings(command.data)
    texts = Texts(dataset)
    table = _table(command, dataset, recordings, texts)
    if table:
        if left_out := len(recordings) - len(table):
            LOG.info("%d recordings are not in the label table: left out", left_out)
        recordings = [name for name in recordings if name in table]
    key = Key(work.out)
    try:
        work.out.mkdir(parents=True, exist_ok=True)
        key.create()
    except OSError as error:
        raise UserError(f"{work.out}: cannot make this folder ({error.strerror}); choose another --out") from error
    kind = "table" if table else command.labels
    with ExitStack() as stack:
        with locked(key):
            own, others = stack.enter_context(joined(key))
            _begin(command, work, key, others)
            plan = plan_import(command.data, recordings, work, key, labels=kind, table=table, patient=command.patient)
            open_tasks = _open_tasks(command, work, key, plan)
        if open_tasks is None:
            LOG.info("%s is complete already: nothing to do", work.out)
            return work
        rejected = _import(command, work, key, plan, open_tasks)
        with locked(key):
            if key.rows() != plan.key or not own.is_mine():
                raise JobError(f"{work.out}: another import changed it meanwhile; rerun the same command")
            if _is_complete(command, work):
                LOG.info("%s: finished by another process", work.out)
            else:
                _finish(command, work, key, plan, rejected, texts)
    return work


def _dataset(command: Import) -> Dataset:
    folder = command.data if command.data.is_dir() else command.data.parent
    given = command.dataset
    dataset = read_dataset(folder) if given is None else dataset_of(read_yaml(given), str(given))
    if dataset.signal != "eeg":
        path = given or folder / DATASET_NAME
        raise UserError(f"{path}: signal: import converts EEG, found {dataset.signal}; render reads audio as it is")
    return dataset


def _work(command: Import, dataset: Dataset) -> Work:
    background = command.background
    if background is not None and not (background == ABSENT and dataset.target == "yes_no"):
        one_of("background", background, dataset.classes)
        if dataset.target == "yes_no":
            raise UserError(f"background: expected {ABSENT} in a yes_no set, found '{background}'")
    return Work(
        out=command.out, dataset=dataset, signal=command.signal_options, truncated=command.truncated,
        every_s=command.every_s, background=background, labelled=command.labels != "none",
    )  # fmt: skip


def _table(command: Import, dataset: Dataset, recordings: list[str], texts: Texts) -> dict[str, FileLabels]:
    if command.labels in _SOURCES:
        return {}
    path = Path(command.labels)
    return match_files(path, read_label_table(path, dataset, texts), recordings)


def _begin(command: Import, work: Work, key: Key, others: list[str]) -> None:
    """Check that OUT is empty or holds an import with the same options, and record them. `others`: other processes that
    import into it."""
    spec = _spec(command, work)
    before = key.spec()
    if before is None and table_path(work).exists():
        raise UserError(
            f"{table_path(work)}: a label table is there already, and {key.folder} does not know it; choose another "
            "--out"
        )
    changed = [] if before is None else [name for name in spec if before.get(name) != spec[name]]
    if others and (changed or command.rebuild):
        options = "--rebuild" if command.rebuild else ", ".join(changed)
        raise UserError(
            f"{work.out}: another import writes it ({others[0]}), and cannot be joined with other options ({options}); "
            "wait for it, or choose another --out"
        )
    if others:
        LOG.info("sharing the import with %s", ", ".join(others))
    if changed and not command.rebuild and _has_rows(work, key):
        raise UserError(
            f"{work.out}: imported with other options ({', '.join(changed)}); --rebuild imports everything again, "
            "another --out leaves it alone"
        )
    if changed or command.rebuild:
        for split in ("train", "test"):
            (work.out / f"{split}.csv").unlink(missing_ok=True)
        for row in key.rows():
            remove_files(work.out, key, row.number)
        key.write_rows([])
    make_folders(work.out, work.split)
    key.write_spec(spec)


def _has_rows(work: Work, key: Key) -> bool:
    """Whether an import has written anything worth keeping. One without label rows has not."""
    results = (key.result(row.number) for row in key.rows())
    return table_path(work).exists() or any(result["rows"] for result in results if result is not None)


def _spec(command: Import, work: Work) -> dict[str, Any]:
    """Options that determine the files, as plain values."""
    names = ("every_s", "background", "map", "reference", "missing", "unit", "truncated")
    return {
        "format_version": 1,
        "dataset": work.dataset.to_json(),
        "labels": command.labels if command.labels in _SOURCES else "table",
        **{name: getattr(command, name) for name in names},
    }


def _open_tasks(command: Import, work: Work, key: Key, plan: Plan) -> list[ImportTask] | None:
    """Write the key; return the recordings that are not imported yet. None: the set is complete."""
    if plan.faults and command.on_error == "fail":
        raise _first(plan.faults)
    key.write_rows(plan.key)
    open_tasks = [task for task in plan.tasks if task.number not in plan.faults and not is_done(key, task)]
    if not open_tasks and _is_complete(command, work):
        return None
    table_path(work).unlink(missing_ok=True)
    return open_tasks


def _is_complete(command: Import, work: Work) -> bool:
    return table_path(work).exists() and ((work.out / "import_report.html").exists() or not command.pictures)


def _import(command: Import, work: Work, key: Key, plan: Plan, open_tasks: list[ImportTask]) -> dict[int, str]:
    """Import recordings; return the reasons of the rejected ones by number."""
    done = len(plan.tasks) - len(open_tasks) - len(plan.faults)
    LOG.info("importing %d recordings into %s (%d imported before)", len(open_tasks), work.out, done)
    rejected = dict(plan.faults)
    results = import_shared(key, open_tasks, lambda tasks: run_jobs(import_recording, tasks, command.workers))
    for result in tqdm(results, "import", len(open_tasks), unit="recording", disable=None):
        if result.fault is not None:
            rejected[result.number] = result.fault
            if command.on_error == "fail":
                break
    if rejected and command.on_error == "fail":
        raise _first(rejected)
    return rejected


def _finish(
    command: Import, work: Work, key: Key, plan: Plan, rejected: dict[int, str], texts: Texts
) -> None:  # fmt: skip
    paths = {task.number: str(task.path) for task in plan.tasks}
    for line in rejected.values():
        LOG.warning("%s", line)
    reasons = {number: line.replace(paths[number], "the file") for number, line in rejected.items()}
    imported = collect(work, key, plan.key, reasons)
    imported.unknown_texts.update(texts.unknown)
    write_tables(work, key, imported)
    _warn(key, imported)
    if command.pictures:
        from hms_dist.report.import_page import write_import_page

        write_import_page(work.out, work.split, imported.values, imported.rows, command.pictures)
    write_label_table(work, imported)
    found = imported.values
    LOG.info(
        "%d label rows of %d recordings, %d patients, %.1f hours: %s",
        found["num_rows"], found["num_recordings"], found["num_patients"], found["hours"], table_path(work),
    )  # fmt: skip


def _warn(key: Key, imported: Imported) -> None:
    """Log unknown texts, and recordings with implausible signals."""
    if unknown := imported.unknown_texts:
        shown = ", ".join(f"'{text[:40]}' ({count})" for text, count in unknown.most_common(8))
        LOG.warning(
            "%d texts have no class: %s; all are in %s; give them classes (or null) under labels: in %s",
            len(unknown), shown, key.folder / TEXTS_NAME, DATASET_NAME,
        )  # fmt: skip
    lines: dict[str, list[int]] = {}
    for one in imported.values["recordings"]:
        for line in one["warnings"]:
            lines.setdefault(line, []).append(one["recording"])
    for line, numbers in lines.items():
        LOG.warning("%d recordings, such as number %d: %s", len(numbers), numbers[0], line)


def _first(faults: dict[int, str]) -> UserError:
    number = min(faults)
    more = f" (and {len(faults) - 1} more recordings)" if len(faults) > 1 else ""
    return UserError(faults[number] + more)
