"""Tables of predictions: key, ids, fold and six probabilities, as Parquet or as Kaggle's submission."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hms_dist.core.csv_table import MAX_WHOLE, CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic
from hms_dist.core.parquet import read_schema, write_table
from hms_dist.core.parquet import read_table as read_stored
from hms_dist.labels.table import CLASSES, VOTE_COLUMNS, sample_key
from hms_dist.results.lineage import Source, with_sources

_INPUTS = ("train.csv", "test.csv", "truth.parquet", "manifest.json", "index.parquet", "rejected.parquet")
"""Of recordings and shard sets; `check_no_input` keeps them from being written over."""
_OF_RUNS = ("config.yaml", "status.json", "environment.json", "metrics.jsonl", "predictions.parquet")
"""Of runs, where one is: the same."""

ID_FIELDS = ("key", "eeg_id", "eeg_sub_id", "fold")
_WHOLE = ("eeg_id", "eeg_sub_id", "fold")
"""Columns of whole numbers."""
MAX_EXACT = 2**53
"""Up to here float64 holds every whole number."""


def prediction_table(
    ids: pd.DataFrame, fold: NDArray[np.int64] | None, probabilities: NDArray[np.float64]
) -> pd.DataFrame:
    """Join ids (key, eeg_id, eeg_sub_id), the validation fold of each row (negative: none) and probabilities."""
    table = (
        ids[["key", "eeg_id", "eeg_sub_id"]].reset_index(drop=True).astype({"eeg_id": "int64", "eeg_sub_id": "int64"})
    )
    folds = np.full(len(table), -1) if fold is None else fold
    table["fold"] = pd.array(folds, "Int64")
    table.loc[table["fold"] < 0, "fold"] = pd.NA
    table[list(CLASSES)] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return table


def write_predictions(path: Path, table: pd.DataFrame, sources: Iterable[Source] = ()) -> None:
    """Write Parquet, or for `.csv` Kaggle's submission columns, atomically. Raises UserError as `check_rows`.

    `sources`: the models that made it, which the Parquet file names in its metadata (`provenance.read_sources`).
    """
    check_rows(path, table["eeg_id"].to_numpy(np.int64))
    _check_probabilities(path, table)
    if path.suffix == ".csv":
        renamed = table.sort_values("eeg_id").rename(columns=dict(zip(CLASSES, VOTE_COLUMNS, strict=True)))
        with atomic(path, "w") as file:
            renamed[["eeg_id", *VOTE_COLUMNS]].to_csv(file, index=False)
    else:
        write_table(path, with_sources(pa.Table.from_pandas(table, preserve_index=False), sources))


def check_rows(path: Path, eeg_ids: NDArray[np.int64]) -> None:
    """Refuse, before any work, a table that could not be written: wrong ending, no folder, a submission of several
    rows an EEG. Raises UserError."""
    if path.suffix not in (".parquet", ".csv"):
        raise UserError(f"{path}: expected a name ending in .parquet or .csv")
    check_place(path)
    if path.suffix == ".csv" and len(np.unique(eeg_ids)) < len(eeg_ids):
        raise UserError(f"{path}: a submission takes one row an EEG, found several; write a .parquet instead")


def check_place(path: Path) -> None:
    """Refuse, before any work, a file that could not be written: no folder for it, or a folder of its name."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose another --out")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder; make it, or choose another --out")


def check_no_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse, before any work, to write over a table that is read, or over what recordings, a shard set or a run need.
    Raises UserError."""
    if out.resolve() in [path.resolve() for path in inputs]:
        raise UserError(f"{out}: is a table that this reads, and would be lost; choose another --out")
    if out.exists() and (out.name in _INPUTS or (out.name in _OF_RUNS and (out.parent / "config.yaml").exists())):
        raise UserError(f"{out}: belongs to recordings, a shard set or a run, and would be lost; choose another --out")


def _check_probabilities(path: Path, table: pd.DataFrame) -> None:
    """Refuse what Kaggle refuses: no numbers, any outside of [0, 1], a sum of a row that is not 1 (np.allclose)."""
    values = table[list(CLASSES)].to_numpy(np.float64)
    good = ((values >= 0) & (values <= 1)).all(axis=1) & np.isclose(values.sum(axis=1), 1)
    bad = np.flatnonzero(~good)
    if bad.size:
        found = ", ".join(f"{value:.6g}" for value in values[bad[0]])
        raise UserError(
            f"{path}: row {table['key'].iloc[bad[0]]}: expected six probabilities with a sum of 1, found {found} "
            f"({bad.size} such rows in all); look at the row with hms-dist show, or take another checkpoint"
        )


def read_predictions(path: Path) -> pd.DataFrame:
    """Read what `write_predictions` wrote.

    Raises UserError for a missing file or column, ids that are no whole numbers, or doubled keys.
    """
    ids = ["eeg_id"] if path.suffix == ".csv" else list(ID_FIELDS)
    columns = VOTE_COLUMNS if path.suffix == ".csv" else CLASSES
    table = read_table(path, [*ids, *columns])
    if path.suffix == ".csv":  # what a submission calls votes are its probabilities; other tables may hold votes beside
        table = table.drop(columns=list(CLASSES), errors="ignore")
        table = table.rename(columns=dict(zip(VOTE_COLUMNS, CLASSES, strict=True)))
    twice = table[ids[0]].duplicated()
    if twice.any():
        raise UserError(f"{path}: {ids[0]} {table[ids[0]][twice].iloc[0]} appears twice; expected once")
    if path.suffix != ".csv":
        _check_keys(path, table)
    return table


def _check_keys(path: Path, table: pd.DataFrame) -> None:
    """Refuse a key that is not that of its ids: some tables are joined by the one, some by the others."""
    ids = table[["eeg_id", "eeg_sub_id"]].to_numpy(np.int64)
    made = [sample_key(eeg, sub) for eeg, sub in ids]
    bad = np.flatnonzero(table["key"].to_numpy() != made)
    if bad.size:
        raise UserError(
            f"{path}: row {bad[0]}: key {table['key'].iloc[bad[0]]} is not that of its eeg_id and eeg_sub_id "
            f"({made[bad[0]]}); {bad.size} such rows; the table was changed, predict again"
        )


def read_truth(path: Path) -> pd.DataFrame:
    """The simulator's truth.parquet: eeg_id, eeg_sub_id and the distribution of each row.

    Raises UserError for a missing file or column, a row twice, and for a table of predictions, which would pass for
    the truth.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; only simulated data has a truth.parquet")
    keys = ["eeg_id", "eeg_sub_id"]
    table = read_table(path, [*keys, *CLASSES])
    if "fold" in table:
        raise UserError(f"{path}: is a table of predictions; expected the truth.parquet of simulated data")
    twice = np.flatnonzero(table.duplicated(keys).to_numpy())
    if twice.size:
        key = ", ".join(f"{name} {table[name].iloc[twice[0]]}" for name in keys)
        raise UserError(f"{path}: {key} appears twice; expected once; take the file that hms-dist simulate wrote")
    return table[[*keys, *CLASSES]]


def read_table(path: Path, columns: list[str]) -> pd.DataFrame:
    """A Parquet or CSV table with these columns: ids int64, `fold` Int64, `key` as it is, all others float64.

    Ids are read exactly, as those of the label table are. Raises UserError naming file, row and column of what is not
    so, a column that appears twice, and booleans in the place of numbers.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder, expected a table; check the path")
    table = _csv_frame(path, columns) if path.suffix == ".csv" else _parquet_frame(path, columns)
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one")
    return table


def _csv_frame(path: Path, columns: list[str]) -> pd.DataFrame:
    if not path.exists():
        raise UserError(f"{path}: no such file; check the path")
    cells = CsvTable(path, "a table of predictions")
    cells.check_names(columns, columns)
    frame: dict[str, Any] = {name: cells.words(name) for name in cells.names if name not in columns}
    for name in columns:
        if name == "key":
            frame[name] = cells.words(name)
        elif name == "fold":
            frame[name] = pd.array(cells.whole_or_empty(name), "Int64")
        elif name in _WHOLE:
            frame[name] = cells.whole_numbers(name)
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
    except Exception as error:  # pandas raises what the metadata that it once wrote makes it raise
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
        if name in _WHOLE:
            table[name] = _whole(path, table[name], null=name == "fold")
    return table


def _whole(path: Path, column: "pd.Series[Any]", *, null: bool) -> "pd.Series[Any]":
    """A column of numbers as int64, or Int64 where it may be `null`, exactly. Raises UserError naming the first row."""
    values = column.astype(object).where(column.notna(), None)
    for row, value in enumerate(values):
        if value is None and null:
            continue
        if value is None or value != value // 1 or abs(value) > MAX_WHOLE:
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
