"""Numbers of recordings whose names are hexadecimal digits, as RFCX's `00204008d`, and back.

The number is the name read as a hexadecimal number after a digit 1, which keeps leading zeros: `00204008d` is
0x100204008d. It fits int64, so tables, keys and folds treat recordings of audio as those of EEG.
"""

import re

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.csv_table import CsvTable

MAX_DIGITS = 15
"""Most digits of a name."""
_NAME = re.compile(rf"[0-9a-f]{{1,{MAX_DIGITS}}}")
EXPECTED = f"1 to {MAX_DIGITS} hexadecimal digits (0-9, a-f)"
"""Names of recordings, for messages."""


def recording_number(name: str) -> int:
    """Return the number of a recording. Raises ValueError for another name."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected {EXPECTED}, found '{name[:40]}'")
    return int(f"1{name}", 16)


def recording_name(number: int) -> str:
    """Return the name of a recording. Raises ValueError for a number that `recording_number` does not return."""
    digits = f"{number:x}"
    if number < 0 or digits[0] != "1" or not _NAME.fullmatch(digits[1:]):
        raise ValueError(f"expected the number of a recording of audio, found {number}")
    return digits[1:]


def numbers_of(table: CsvTable, column: str) -> NDArray[np.int64]:
    """Numbers [rows] of the recordings that a column names. Raises UserError naming the first row with another name."""
    names = table.words(column)
    numbers: dict[str, int] = {}
    for row, name in enumerate(names):
        if name not in numbers:
            try:
                numbers[name] = recording_number(name)
            except ValueError as error:
                raise table.refusal(row, column, EXPECTED) from error
    return np.array([numbers[name] for name in names], np.int64)
