"""A CSV file as cells of text, and its columns as numbers that are exactly what the text says.

Cells are parsed one by one instead of by a CSV library, which turns ids beyond 2^53 into their neighbours as soon
as one cell of the column has a decimal point, renames columns that stand twice, and cannot say which row is bad.
"""

import io
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_bytes

Value = TypeVar("Value", int, float)
MAX_WHOLE = 2**63 - 1
"""Largest whole number that the tables downstream hold."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


class CsvTable:
    """One CSV file: comma-separated UTF-8 text whose first line names the columns. Blank lines count for nothing."""

    def __init__(self, path: Path, what: str = "the label table") -> None:
        """Read `path`, expected to be `what`. Raises UserError if it is missing, unreadable, empty, or no such text."""
        self.path = path
        cells = _read_text(path, what)
        self.names: list[str] = [str(name).strip() for name in cells.iloc[0]]
        """Column names, in the order of the file; blanks around them do not count."""
        self._cells = cells.iloc[1:]

    def __len__(self) -> int:
        return len(self._cells)

    def check_names(self, required: list[str], known: list[str]) -> None:
        """Refuse a table in which a required column is missing, or a known one appears twice."""
        missing = [name for name in required if name not in self.names]
        if missing and (other := _other_separator(self.names)):
            raise UserError(f"{self.path}: columns are separated by {other}; expected commas; save it with commas")
        if missing:
            raise UserError(f"{self.path}: column {missing[0]} is missing; expected {', '.join(required)}")
        twice = [name for name in known if self.names.count(name) > 1]
        if twice:
            raise UserError(f"{self.path}: column {twice[0]} appears more than once; expected once; remove the others")

    def words(self, name: str) -> list[str]:
        """Column `name` as it stands, without blanks around each cell."""
        return [cell.strip() for cell in self._column(name).tolist()]

    def numbers(self, name: str, largest: float) -> NDArray[np.float64]:
        """Column `name` as float64 from 0 to `largest`. Raises UserError naming the first row that is not."""
        return self._parsed(name, number, largest).astype(np.float64)

    def whole_numbers(self, name: str, largest: int = MAX_WHOLE) -> NDArray[np.int64]:
        """Column `name` as int64 from 0 to `largest`. Raises UserError naming the first row that is not."""
        return self._parsed(name, whole_number, largest).astype(np.int64)

    def whole_or_empty(self, name: str) -> list[int | None]:
        """Column `name` as `whole_numbers`; None for an empty cell."""
        parsed = self._parsed(name, lambda cell, largest: whole_number(cell, largest) if cell else -1, MAX_WHOLE)
        return [None if value < 0 else value for value in parsed.tolist()]

    def refusal(self, row: int, column: str, expected: str) -> UserError:
        """The error that names a bad cell; the first row below the column names is row 2, as in an editor."""
        found = " ".join(self.words(column)[row].split())[:40]
        return UserError(
            f"{self.path}: row {row + 2}, column {column}: expected {expected}, found '{found}'; fix the table"
        )

    def _column(self, name: str) -> "pd.Series[str]":
        return self._cells.iloc[:, self.names.index(name)]

    def _parsed(self, name: str, parse: Callable[[str, Value], Value], largest: Value) -> NDArray[np.object_]:
        # Most cells repeat: 100,000 rows hold 20 different votes.
        codes, cells = pd.factorize(self._column(name))
        values = []
        for code, cell in enumerate(cells):
            try:
                values.append(parse(cell.strip(), largest))
            except ValueError as error:  # cells come in the order of the file, so this is the first bad row
                raise self.refusal(int((codes == code).argmax()), name, str(error)) from error
        return np.array(values, object)[codes]


def number(cell: str, largest: float) -> float:
    """The float64 nearest to a decimal number. Raises ValueError saying what was expected."""
    value = float(cell) if _NUMBER.fullmatch(cell) else np.nan
    if not value >= 0:
        raise ValueError("a number of at least 0")
    if value > largest:
        raise ValueError(f"a number of at most {largest:g}")
    return value


def whole_number(cell: str, largest: int) -> int:
    """A whole number, exactly, also when written 5.0 or 1.6e9. Raises ValueError saying what was expected."""
    if cell.isascii() and cell.isdigit() and len(cell) < len(str(largest)):
        return int(cell)
    if not _NUMBER.fullmatch(cell) or (value := Decimal(cell)) < 0:
        raise ValueError("a number of at least 0")
    if value > largest:
        raise ValueError(f"an integer of at most {largest}")
    if value != int(value):
        raise ValueError("an integer")
    return int(value)


def _read_text(path: Path, what: str) -> pd.DataFrame:
    """Every cell as text, the line of names included. A row shorter than that line ends in empty cells."""
    if not path.exists():
        raise UserError(f"{path}: no such file; expected {what}")
    if not path.is_file():
        raise UserError(f"{path}: not a file; expected {what}; check the path")
    try:
        content = read_bytes(path, limits.CSV_BYTES)
        # From memory: a name that ends in .gz would be decompressed, whatever its size then.
        cells = pd.read_csv(io.BytesIO(content), dtype=str, header=None, encoding="utf-8-sig", na_filter=False)
        return cells.fillna("")
    except pd.errors.EmptyDataError as error:
        raise UserError(f"{path}: the file is empty; expected {what}") from error
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: cannot read it as CSV (not UTF-8 text: {error.reason} at byte {error.start}); "
            "save it as comma-separated UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror}); check its rights") from error
    except ValueError as error:
        message = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise UserError(f"{path}: cannot read it as CSV ({message}); fix the table") from error


def _other_separator(names: list[str]) -> str | None:
    """What stands between the names of a table that has no commas, if it is one of the usual signs."""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars"}
    return next((word for sign, word in signs.items() if len(names) == 1 and sign in names[0]), None)
