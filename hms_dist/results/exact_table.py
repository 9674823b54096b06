"""Reading of tables whose ids must be exact, from Parquet or CSV."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_dist.core.csv_table import MAX_INTEGER, CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.parquet import read_schema
from hms_dist.core.parquet import read_table as read_stored
from hms_dist.labels.recording_ids import numbers_of

INTEGER_COLUMNS = ("eeg_id", "eeg_sub_id", "fold")
MAX_EXACT = 2**53
"""float64 represents every integer up to this one."""


def read_table(
    path: Path, columns: list[str], whole: Sequence[str] = INTEGER_COLUMNS, *, recordings: str | None = None
) -> pd.DataFrame:
    """Read these columns of a Parquet or CSV table: ids (`whole`) int64, `fold` Int64, `key` unchanged, all others
    float64. `recordings`: column of a CSV table with names of recordings of audio, read as their numbers.

    Ids are read exactly, as in the label table. Raises UserError with file, row and column for invalid values,
    duplicate columns, and booleans in place of numbers.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a table; check the path")
    is_csv = path.suffix == ".csv"
    table = _csv_frame(path, columns, whole, recordings) if is_csv else _parquet_frame(path, columns)
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one")
    return table


def _csv_frame(path: Path, columns: list[str], whole: Sequence[str], recordings: str | None) -> pd.DataFrame:
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    cells = CsvTable(path, "a table of predictions")
    cells.check_names(columns, columns)
    frame: dict[str, Any] = {name: cells.words(name) for name in cells.names if name not in columns}
    for name in columns:
        if name == "key":
            frame[name] = cells.words(name)
        elif name == recordings:
            frame[name] = numbers_of(cells, name)
        elif name == "fold":
            frame[name] = pd.array(cells.integers_or_none(name), "Int64")
        elif name in whole:
            frame[name] = cells.integers(name)
        else:
            frame[name] = cells.numbers(name, np.inf)
    return pd.DataFrame(frame)


def _parquet_frame(path: Path, columns: list[str]) -> pd.DataFrame:
    try:
        names = read_schema(path).names
        twice = [name for name in columns if names.count(name) > 1]
        if twice:
            raise UserError(f"{path}: column {twice[0]} appears more than once; expected once; remove the others")
        table = read_stored(path).to_pandas()
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except Exception as error:  # pandas may raise anything if its own metadata is invalid
        raise UserError(f"{path}: not a readable table ({' '.join(str(error).split())})") from error
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path}: column {missing[0]} is missing; expected {', '.join(columns)}")
    for name in columns:
        if name == "key":
            continue
        kind = table[name].dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
            raise UserError(f"{path}: column {name}: expected numbers, found {kind}; fix the table")
        if name in INTEGER_COLUMNS:
            table[name] = _whole(path, table[name], null=name == "fold")
    return table


def _whole(path: Path, column: "pd.Series[Any]", *, null: bool) -> "pd.Series[Any]":
    """Convert a numeric column to int64 exactly, or to Int64 with `null`. Raises UserError naming the first invalid
    row."""
    values = column.astype(object).where(column.notna(), None)
    for row, value in enumerate(values):
        if value is None and null:
            continue
        if value is None or value != value // 1 or abs(value) > MAX_INTEGER:
            found = "nan" if value is None else f"{value:g}"
            raise UserError(
                f"{path}: row {row}, column {column.name}: expected an integer, found {found}; fix the table"
            )
        if isinstance(value, float) and abs(value) > MAX_EXACT:
            raise UserError(
                f"{path}: row {row}, column {column.name}: {value:.0f} is stored as a float, which cannot hold every "
                "integer of that size; store the column as int64"
            )
    whole = pd.array([None if value is None else int(value) for value in values], "Int64")
    return pd.Series(whole, column.index).astype("Int64" if null else "int64")
