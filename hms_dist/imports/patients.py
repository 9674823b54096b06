"""Numbering of patients, identified by the label table, the header, the folder, the file name or a part of its path."""

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from hms_dist.core.errors import UserError

AUTO, KINDS = "auto", ("table", "header", "folder", "file")
_MOST = 200
"""Most characters of a regular expression."""


def check_rule(rule: str) -> None:
    """Raise ValueError for a rule that is neither one of the kinds nor a regular expression with one group."""
    if rule in (AUTO, *KINDS):
        return
    try:
        groups = re.compile(rule).groups if len(rule) <= _MOST else 0
    except re.error:
        groups = 0
    if groups != 1:
        raise ValueError(
            f"patient: expected {', '.join((AUTO, *KINDS))}, or a regular expression with one group, such as "
            f"'(sub-[0-9]+)', found '{rule[:40]}'"
        )


def patient_of(rule: str, recording: str, in_table: str, header: Callable[[], str], *, alone: bool) -> str:
    """Return the text that distinguishes the patient of a recording (its path below the data folder).

    `in_table`: the patient in the label table, empty if it has none; `header`: reads the patient code of the file;
    `alone`: whether there is no other recording. Raises UserError if the rule finds no patient.
    """
    path = PurePosixPath(recording)
    if rule == AUTO:
        found = in_table or header() or ("" if not alone else recording)
        advice = "expected a patient in the label table or in the header"
    elif rule == "table":
        found, advice = in_table, "expected column patient in the label table"
    elif rule == "header":
        found, advice = header(), "expected a code of the patient in the header"
    elif rule == "folder":
        found, advice = (path.parts[0] if len(path.parts) > 1 else ""), "expected a folder for each patient"
    elif rule == "file":
        return recording
    else:
        match = re.search(rule, recording)
        found, advice = (match[1] or "" if match else ""), f"expected a match of '{rule}'"
    if not found:
        raise UserError(
            f"patient: {advice}, found none; folds hold out patients, so state them by --patient "
            "folder, file (a patient for each), or a regular expression of the path"
        )
    return found


def numbered(texts: Mapping[str, str], before: Mapping[str, int]) -> dict[str, int]:
    """Number the patients of recordings (recording -> text): those of `before` keep theirs, new ones get the next."""
    numbers = dict(before)
    for text in texts.values():
        if text not in numbers:
            numbers[text] = max(numbers.values(), default=0) + 1
    return numbers
