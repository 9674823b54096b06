"""Events beside a recording: BIDS events.tsv, TUSZ .csv_bi and TUEV .rec files."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_bytes
from hms_dist.imports.source import Event

TUEV_TEXTS = {"1": "spsw", "2": "gped", "3": "pled", "4": "eyem", "5": "artf", "6": "bckg"}
"""Codes of TUEV's .rec files."""
_BIDS_TEXTS = ("trial_type", "eventType", "event_type", "value")
"""Columns of events.tsv that may hold the text, in the order of preference."""
_UNKNOWN = ("", "n/a")


def bids_path(recording: Path) -> Path:
    """Path of the events.tsv of a BIDS recording."""
    return recording.with_name(f"{recording.stem.removesuffix('_eeg')}_events.tsv")


def read_bids(path: Path) -> list[Event]:
    """Read events.tsv: onset, duration (n/a: 0) and a text. Raises UserError naming file and row."""
    rows = _rows(path, "\t")
    name = next((name for name in _BIDS_TEXTS if rows and name in rows[0]), _BIDS_TEXTS[0])
    return [
        _event(path, number, row, ("onset", None, "duration"), name)
        for number, row in enumerate(rows)
        if (row.get(name) or "").strip() not in _UNKNOWN
    ]


def read_csv_bi(path: Path) -> list[Event]:
    """Read a TUSZ label file: channel,start_time,stop_time,label,confidence below comments."""
    return [
        _event(path, number, row, ("start_time", "stop_time", None), "label")
        for number, row in enumerate(_rows(path, ","))
    ]


def read_rec(path: Path) -> list[Event]:
    """Read a TUEV label file: channel,start,stop,code without a header; an event for each line. Raises UserError."""
    names = ("channel", "start", "stop", "code")
    events = []
    for number, row in enumerate(_rows(path, ",", names)):
        event = _event(path, number, row, ("start", "stop", None), "code", first_row=1)
        if event.text not in TUEV_TEXTS:
            raise UserError(
                f"{path}: row {number + 1}: expected a code of 1 to 6, found '{event.text[:40]}'; correct it"
            )
        events.append(Event(event.start_s, event.end_s, TUEV_TEXTS[event.text]))
    return events


def seconds(path: Path, row: int, column: str, text: str | None) -> float:
    """Parse a number of seconds. Raises UserError naming file, row and column."""
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise UserError(
            f"{path}: row {row}, column {column}: expected seconds, found '{' '.join((text or '').split())[:40]}'; "
            "correct it"
        )
    return value


def _event(
    path: Path, number: int, row: dict[str, str], times: tuple[str, str | None, str | None], text: str,
    first_row: int = 2,
) -> Event:  # fmt: skip
    """Build the event of a row; `times`: columns of start, end and length."""
    for name in (times[0], times[1], text):
        if name is not None and name not in row:
            raise UserError(f"{path}: column {name} is missing; expected it; found {', '.join(row)[:200]}")
    start, end, length = times
    begin = seconds(path, number + first_row, start, row[start])
    if end is not None:
        stop = seconds(path, number + first_row, end, row[end])
    else:
        given = (row.get(length or "") or "").strip()
        stop = begin + (0.0 if given in _UNKNOWN else seconds(path, number + first_row, str(length), given))
    if stop < begin:
        raise UserError(
            f"{path}: row {number + first_row}: expected an end after {begin:g} s, found {stop:g} s; correct it"
        )
    return Event(begin, stop, (row[text] or "").strip())


def _rows(path: Path, separator: str, names: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Read a table of text; lines that begin with # are comments."""
    try:
        text = read_bytes(path, limits.CSV_BYTES).decode("utf-8-sig")
        lines = io.StringIO("\n".join(line for line in text.splitlines() if line.strip() and line[0] != "#"))
        rows = list(csv.DictReader(lines, names, delimiter=separator, restkey="", restval=""))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a table of UTF-8 text ({error}); save it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror}); check its permissions") from error
    return [{(key or "").strip(): value for key, value in row.items()} for row in rows]
