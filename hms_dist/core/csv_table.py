"""Exact reading of CSV files: cells as text, columns as integers or floats.

pyarrow reads the cells as text, and they are parsed here: a CSV library would round ids beyond 2^53 as soon as one cell
of the column has a decimal point, or reject 5.0 as an integer.
"""

import csv
import io
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv as csv_reader

from hms_dist.core import limits
from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import read_bytes

Value = TypeVar("Value", int, float)
MAX_INTEGER = 2**63 - 1
"""Largest integer that the tables built from a CSV file can hold."""
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")


class CsvTable:
    """A CSV file: comma-separated UTF-8 text whose first line holds the column names. Blank lines are ignored."""

    def __init__(self, path: Path, what: str = "the label table") -> None:
        """Read `path`. `what` describes the expected file in errors. Raises UserError if it is missing, unreadable,
        empty or not CSV."""
        self.path = path
        cells = _read_text(path, what)
        self.names: list[str] = [column[0].as_py().strip() for column in cells.columns]
        """Column names in file order, without surrounding blanks."""
        self._cells = cells.slice(1)

    def __len__(self) -> int:
        return int(self._cells.num_rows)

    def check_names(self, required: list[str], known: list[str]) -> None:
        """Raise UserError if a required column is missing or a known column is duplicated."""
        missing = [name for name in required if name not in self.names]
        if missing and (other := _other_separator(self.names)):
            raise UserError(f"{self.path}: columns are separated by {other}; expected commas; save it with commas")
        if missing:
            raise UserError(f"{self.path}: column {missing[0]} is missing; expected {', '.join(required)}")
        twice = [name for name in known if self.names.count(name) > 1]
        if twice:
            raise UserError(f"{self.path}: column {twice[0]} appears more than once; expected once; remove the others")

    def words(self, name: str) -> list[str]:
        """Return column `name` as text, without surrounding blanks."""
        return [cell.strip() for cell in self._column(name).to_pylist()]

    def numbers(self, name: str, largest: float) -> NDArray[np.float64]:
        """Return column `name` as float64 in [0, `largest`]. Raises UserError naming the first invalid row."""
        return self._parsed(name, number, largest).astype(np.float64)

    def integers(self, name: str, largest: int = MAX_INTEGER) -> NDArray[np.int64]:
        """Return column `name` as int64 in [0, `largest`]. Raises UserError naming the first invalid row."""
        return self._parsed(name, integer, largest).astype(np.int64)

    def integers_or_none(self, name: str, largest: int = MAX_INTEGER) -> list[int | None]:
        """Return column `name` as `integers` does, with None for empty cells."""
        parsed = self._parsed(name, lambda cell, largest: integer(cell, largest) if cell else -1, largest)
        return [None if value < 0 else value for value in parsed.tolist()]

    def refusal(self, row: int, column: str, expected: str) -> UserError:
        """Build the error for an invalid cell. The first row below the header is row 2, as in an editor."""
        found = " ".join(self.words(column)[row].split())[:40]
        return UserError(
            f"{self.path}: row {row + 2}, column {column}: expected {expected}, found '{found}'; fix the table"
        )

    def _column(self, name: str) -> pa.ChunkedArray:
        return self._cells.column(self.names.index(name))

    def _parsed(self, name: str, parse: Callable[[str, Value], Value], largest: Value) -> NDArray[np.object_]:
        # Most cells repeat (100,000 rows hold about 20 different vote counts), so each distinct cell is parsed once.
        column = self._column(name).combine_chunks().dictionary_encode()
        codes, values = column.indices.to_numpy(), []
        for code, cell in enumerate(column.dictionary.to_pylist()):
            try:
                values.append(parse(cell.strip(), largest))
            except ValueError as error:  # cells come in the order of the file, so this is the first bad row
                raise self.refusal(int((codes == code).argmax()), name, str(error)) from error
        return np.array(values, object)[codes]


def number(cell: str, largest: float) -> float:
    """Parse a decimal number as float64. Raises ValueError with the expected form."""
    value = float(cell) if _NUMBER.fullmatch(cell) else np.nan
    if not value >= 0:
        raise ValueError("a number of at least 0")
    if value > largest:
        raise ValueError(f"a number of at most {largest:g}")
    return value


def integer(cell: str, largest: int) -> int:
    """Parse an integer exactly, also when written as 5.0 or 1.6e9. Raises ValueError with the expected form."""
    if cell.isascii() and cell.isdigit() and len(cell) < len(str(largest)):
        return int(cell)
    if not _NUMBER.fullmatch(cell) or (value := Decimal(cell)) < 0:
        raise ValueError("a number of at least 0")
    if value > largest:
        raise ValueError(f"an integer of at most {largest}")
    if value != int(value):
        raise ValueError("an integer")
    return int(value)


def _read_text(path: Path, what: str) -> pa.Table:
    """Read all cells as text, header included."""
    if not path.exists():
        raise UserError(f"{path}: no such file; expected {what}")
    if not path.is_file():
        raise UserError(f"{path}: not a file; expected {what}; check the path")
    try:
        text = read_bytes(path, limits.CSV_BYTES).decode("utf-8-sig").lstrip()
        names = next(csv.reader(io.StringIO(text, newline="")), None)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: cannot read it as CSV (not UTF-8 text: {error.reason} at byte {error.start}); "
            "save it as comma-separated UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot read this file ({error.strerror}); check its permissions") from error
    except (csv.Error, ValueError) as error:
        raise UserError(f"{path}: cannot read it as CSV ({error}); fix the table") from error
    if names is None:
        raise UserError(f"{path}: the file is empty; expected {what}")
    return _parse(path, text, len(names))


def _parse(path: Path, text: str, num_columns: int) -> pa.Table:
    """Parse `text` into `num_columns` columns of text. Raises UserError for a row of another length."""
    odd: list[Any] = []

    def odd_row(row: Any) -> str:
        if row.text.strip():
            odd.append(row)
        return "error" if odd else "skip"

    last = ["end"] * num_columns  # row added at the end; a quote that never ends in the row before swallows it
    try:
        table = csv_reader.read_csv(
            pa.BufferReader("\n".join([text, ",".join(last), ""]).encode()),
            csv_reader.ReadOptions(autogenerate_column_names=True, use_threads=False),
            csv_reader.ParseOptions(newlines_in_values=True, invalid_row_handler=odd_row),
            csv_reader.ConvertOptions(
                column_types={f"f{column}": pa.string() for column in range(num_columns)}, strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        if not odd:
            why = "a quote never ends" if text.count('"') % 2 else first_line(error)
            raise UserError(f"{path}: cannot read it as CSV ({why}); fix the table") from error
        is_open = odd[0].text.count('"') % 2
        fault = "a quote never ends" if is_open else f"expected {num_columns} cells, found {odd[0].actual_columns}"
        raise UserError(f"{path}: row {odd[0].number}: {fault}; fix the table") from error
    rows = table.num_rows - 1
    if [column[rows].as_py() for column in table.columns] != last:
        raise UserError(f"{path}: row {rows + 1}: a quote never ends; fix the table")
    return table.slice(0, rows)


def _other_separator(names: list[str]) -> str | None:
    """Return the separator of a header without commas if it is a common one, else None."""
    signs = {";": "semicolons", "\t": "tabs", "|": "bars"}
    return next((word for sign, word in signs.items() if len(names) == 1 and sign in names[0]), None)
