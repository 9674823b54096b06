"""The label table of `hms-dist import --labels FILE`: rows or events of each file, and its patient.

Columns: `file`, optionally `patient`, and either
- `time_s`, the middle of the labelled part, with `<class>_vote` columns, a label row per line; or with `label`, a label
  row per time, with one vote per line of that time;
- or `label` with `start_s` and `end_s`: events. Without these two the label is that of the whole file.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.imports.events import seconds
from hms_dist.imports.rows import Row, Texts, on_grid
from hms_dist.imports.source import Event

WHOLE_S = 1e8
"""End of an event that covers a whole file."""
_MOST_VOTES = 2**31 - 1


@dataclass
class FileLabels:
    """Labels of one file."""

    rows: list[Row] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    patient: str = ""
    first_row: int = 0
    """Row of the table that names the file first."""


def read_label_table(path: Path, dataset: Dataset, texts: Texts) -> dict[str, FileLabels]:
    """Read a table of labels by file, as the table names it. Raises UserError with file, row and column."""
    table = CsvTable(path)
    given = [name for name in dataset.vote_columns if name in table.names]
    wanted = ["file", *(dataset.vote_columns if given else ["label"]), *(["time_s"] if given else [])]
    table.check_names(wanted, [*wanted, "time_s", "start_s", "end_s", "patient"])
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one")
    files, patients = table.words("file"), table.words("patient") if "patient" in table.names else None
    labels: dict[str, FileLabels] = {}
    for row, name in enumerate(files):
        one = labels.setdefault(name, FileLabels(first_row=row + 2))
        if patients is not None:
            if one.patient not in ("", patients[row]):
                raise table.refusal(row, "patient", f"one patient for each file, '{one.patient}' as above")
            one.patient = patients[row]
    if given:
        _add_votes(table, files, labels, dataset)
    elif "time_s" in table.names:
        _add_rows(table, files, labels, dataset, texts)
    else:
        _add_events(table, files, labels)
    return labels


def match_files(path: Path, labels: Mapping[str, FileLabels], recordings: Sequence[str]) -> dict[str, FileLabels]:
    """Return the labels by recording (path relative to the data folder). The table may name a file by its path, its
    name, or its name without ending. Raises UserError for one that matches none or several."""
    by_name: dict[str, set[str]] = defaultdict(set)
    for recording in recordings:
        here = PurePosixPath(recording)
        for name in (recording, str(here.with_suffix("")), here.name, here.stem):
            by_name[name].add(recording)
    matched: dict[str, FileLabels] = {}
    for name, found in labels.items():
        near = by_name.get(name.replace("\\", "/").removeprefix("./"), set())
        if name in near:
            near = {name}
        if len(near) != 1:
            number = "no recording" if not near else f"{len(near)} recordings"
            raise UserError(
                f"{path}: row {found.first_row}, column file: expected the path of a recording, found '{name[:80]}', "
                f"which matches {number}; give its path below the data folder"
            )
        recording = near.pop()
        if recording in matched:
            raise UserError(f"{path}: row {found.first_row}: '{name[:80]}' is named in two ways; name it in one")
        matched[recording] = found
    return matched


def _add_votes(table: CsvTable, files: list[str], labels: dict[str, FileLabels], dataset: Dataset) -> None:
    times, columns = table.numbers("time_s", 1e9), [table.integers_or_none(name) for name in dataset.vote_columns]
    for row, (name, votes) in enumerate(zip(files, zip(*columns, strict=True), strict=True)):
        if dataset.target == "shares":
            if None in votes or not any(votes):
                raise UserError(
                    f"{table.path}: row {row + 2}: expected a number of votes for each class and at least one vote"
                )
        elif all(vote is None for vote in votes):
            raise UserError(f"{table.path}: row {row + 2}: all classes are unknown; remove the row")
        labels[name].rows.append(Row(on_grid(float(times[row])), votes))


def _add_rows(table: CsvTable, files: list[str], labels: dict[str, FileLabels], dataset: Dataset, texts: Texts) -> None:
    times = table.numbers("time_s", 1e9)
    votes: dict[tuple[str, float], list[int]] = {}
    for name, time_s, text in zip(files, times.tolist(), table.words("label"), strict=True):
        place = texts.place(text)
        if place is not None:
            votes.setdefault((name, on_grid(time_s)), [0] * dataset.num_classes)[place] += 1
    for (name, centre_s), counts in votes.items():
        if dataset.target == "yes_no":
            labels[name].rows.append(Row(centre_s, tuple(min(count, 1) for count in counts)))
        else:
            labels[name].rows.append(Row(centre_s, tuple(counts)))


def _add_events(table: CsvTable, files: list[str], labels: dict[str, FileLabels]) -> None:
    bounds = [name for name in ("start_s", "end_s") if name in table.names]
    if len(bounds) == 1:
        raise UserError(f"{table.path}: column {bounds[0]} needs the other of start_s and end_s; add it")
    columns = [table.words(name) for name in ("label", *bounds)]
    for row, (name, cells) in enumerate(zip(files, zip(*columns, strict=True), strict=True)):
        start, end = (
            [seconds(table.path, row + 2, *pair) for pair in zip(bounds, cells[1:], strict=True)]
            if bounds
            else (0.0, WHOLE_S)
        )
        if end < start:
            raise UserError(
                f"{table.path}: row {row + 2}: expected an end after {start:g} s, found {end:g} s; correct it"
            )
        labels[name].events.append(Event(start, end, cells[0]))
