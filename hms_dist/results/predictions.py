"""Tables of predictions (key, ids, fold, a probability per class), as Parquet or as a submission.

A Parquet table of another data set than HMS carries its description in the metadata.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic, canonical_json, parse_json
from hms_dist.core.parquet import read_schema, write_table
from hms_dist.datasets import HMS, Dataset, dataset_of
from hms_dist.labels.recording_ids import recording_name
from hms_dist.labels.table import sample_key
from hms_dist.results.exact_table import INTEGER_COLUMNS, read_table
from hms_dist.results.lineage import Source, with_sources

_INPUTS = ("train.csv", "test.csv", "truth.parquet", "manifest.json", "index.parquet", "rejected.parquet")
"""Files of recordings and shard sets, which `check_no_input` protects from being overwritten."""
_OF_RUNS = ("config.yaml", "status.json", "environment.json", "metrics.jsonl", "predictions.parquet")
"""Files of run folders, protected likewise."""

ID_FIELDS = ("key", "eeg_id", "eeg_sub_id", "fold")
TIME_COLUMN = "time_s"
"""Column of the middle of each row's window, seconds of the recording: of audio, and of a single recording."""
_OFFSET = "eeg_label_offset_seconds"
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}
DATASET_KEY = b"hms_dist.dataset"
"""Metadata key of the data set in a Parquet file; absent: HMS."""


def prediction_table(
    ids: pd.DataFrame, fold: NDArray[np.int64] | None, probabilities: NDArray[np.float64], dataset: Dataset = HMS
) -> pd.DataFrame:
    """Join ids (key, eeg_id, eeg_sub_id), the validation fold of each row [rows] (negative: none) and probabilities
    [rows, classes].

    Shares are divided by the sum of their row. Rows of audio also have the middle of their window, seconds of the
    recording, in a last column TIME_COLUMN, if `ids` has that column or their offsets.
    """
    table = (
        ids[["key", "eeg_id", "eeg_sub_id"]].reset_index(drop=True).astype({"eeg_id": "int64", "eeg_sub_id": "int64"})
    )
    folds = np.full(len(table), -1) if fold is None else fold
    table["fold"] = pd.array(folds, "Int64")
    table.loc[table["fold"] < 0, "fold"] = pd.NA
    names = list(dataset.classes)
    values = probabilities / probabilities.sum(axis=1, keepdims=True) if dataset.target == "shares" else probabilities
    table = pd.concat([table, pd.DataFrame(values, columns=names)], axis=1)
    if TIME_COLUMN in ids:
        table[TIME_COLUMN] = ids[TIME_COLUMN].to_numpy(np.float64)
    elif dataset.signal == "audio" and _OFFSET in ids:
        table[TIME_COLUMN] = ids[_OFFSET].to_numpy(np.float64) + dataset.window_s / 2
    return table


def write_predictions(path: Path, table: pd.DataFrame, sources: Iterable[Source] = (), dataset: Dataset = HMS) -> None:
    """Write Parquet, or the columns of a submission for `.csv`, atomically. Raises UserError as `check_rows`.

    `sources`: the models behind the table, recorded in the Parquet metadata (`lineage.read_sources`).
    """
    check_rows(path, table["eeg_id"].to_numpy(np.int64), dataset)
    _check_probabilities(path, table, dataset)
    if path.suffix == ".csv":
        names = ["eeg_id", *dataset.classes]
        submission = pooled_rows(table, dataset).sort_values("eeg_id")[names]
        if dataset.signal == "audio":
            submission["eeg_id"] = [recording_name(number) for number in submission["eeg_id"]]
        submission.columns = pd.Index([dataset.submission.key, *dataset.submission.columns(dataset.classes)])
        with atomic(path, "w") as file:
            submission.to_csv(file, index=False)
    else:
        stored = with_sources(pa.Table.from_pandas(table, preserve_index=False), sources)
        if dataset.stored != HMS:
            stored = stored.replace_schema_metadata(
                {**(stored.schema.metadata or {}), DATASET_KEY: canonical_json(dataset.stored.to_json())}
            )
        write_table(path, stored)


def pooled_rows(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Pool the rows of each recording as submissions of the data set do (`Submission.pool`): eeg_id and a probability a
    class; of shares divided by their sum."""
    rule, names = dataset.submission.pool, list(dataset.classes)
    if rule == "none":
        return table
    numbers, row_of = np.unique(table["eeg_id"].to_numpy(np.int64), return_inverse=True)
    values = table[names].to_numpy(np.float64)
    pooled = np.zeros((len(numbers), len(names)))
    if rule == "max":
        np.maximum.at(pooled, row_of, values)
    elif rule == "mean":
        np.add.at(pooled, row_of, values)
        pooled /= np.bincount(row_of)[:, None]
    else:  # 1 - product of (1 - p), in logarithms
        np.add.at(pooled, row_of, np.log1p(-np.minimum(values, 1 - 1e-15)))
        pooled = -np.expm1(pooled)
    if dataset.target == "shares":
        pooled /= pooled.sum(axis=1, keepdims=True)
    return pd.DataFrame(pooled, columns=names).assign(eeg_id=numbers)


def check_rows(path: Path, eeg_ids: NDArray[np.int64], dataset: Dataset = HMS) -> None:
    """Raise UserError, before any work, if the table cannot be written: wrong suffix, missing folder, or a submission
    with several rows per EEG that the data set does not pool. `eeg_ids` [rows]."""
    if path.suffix not in (".parquet", ".csv"):
        raise UserError(f"{path}: expected a name ending in .parquet or .csv")
    check_place(path)
    several = dataset.submission.pool == "none" and len(np.unique(eeg_ids)) < len(eeg_ids)
    if path.suffix == ".csv" and several:
        raise UserError(f"{path}: a submission takes one row per EEG, found several; write a .parquet instead")


def check_place(path: Path) -> None:
    """Raise UserError, before any work, if the file cannot be written: missing folder, or a folder of that name."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; choose another --out")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent}: no such folder; make it, or choose another --out")


def check_no_input(out: Path, inputs: Iterable[Path]) -> None:
    """Raise UserError, before any work, if `out` is one of the tables read, or a file of recordings, a shard set or a
    run."""
    if out.resolve() in [path.resolve() for path in inputs]:
        raise UserError(f"{out}: is a table that this reads, and would be lost; choose another --out")
    if out.exists() and (out.name in _INPUTS or (out.name in _OF_RUNS and (out.parent / "config.yaml").exists())):
        raise UserError(f"{out}: belongs to recordings, a shard set or a run, and would be lost; choose another --out")


def _check_probabilities(path: Path, table: pd.DataFrame, dataset: Dataset) -> None:
    """Reject what Kaggle rejects: missing values, values outside of [0, 1], rows that do not sum to 1 (np.allclose)."""
    values = table[list(dataset.classes)].to_numpy(np.float64)
    bad = np.flatnonzero(~are_probabilities(values, dataset))
    if bad.size:
        found = ", ".join(f"{value:.6g}" for value in values[bad[0]])
        raise UserError(
            f"{path}: row {table['key'].iloc[bad[0]]}: expected {in_words(dataset)}, found {found} "
            f"({bad.size} such rows in all); look at the row with hms-dist show, or take another checkpoint"
        )


def are_probabilities(
    values: NDArray[np.float64], dataset: Dataset, tolerance: float | None = None
) -> NDArray[np.bool_]:
    """Mask [rows] of the rows whose values are in [0, 1] and, for shares, sum to 1 within `tolerance`.

    None: as Kaggle compares (np.allclose), and with exact bounds.
    """
    within = ((values >= 0) & (values <= 1 + (tolerance or 0))).all(axis=1)
    if dataset.target == "yes_no":
        return np.asarray(within)
    sums = values.sum(axis=1)
    return np.asarray(within & (np.isclose(sums, 1) if tolerance is None else abs(sums - 1) < tolerance))


def in_words(dataset: Dataset) -> str:
    """The values that `are_probabilities` accepts, for messages."""
    end = " with a sum of 1" if dataset.target == "shares" else ""
    return f"{_NUMBERS.get(dataset.num_classes, dataset.num_classes)} probabilities{end}"


def dataset_of_table(path: Path) -> Dataset:
    """The data set whose classes a table of predictions has; HMS for a .csv, which does not name it.

    Raises UserError for a missing or damaged file.
    """
    if path.suffix == ".csv":
        return HMS
    try:
        metadata = read_schema(path).metadata or {}
        content = metadata.get(DATASET_KEY)
        return HMS if content is None else dataset_of(parse_json(content), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; check the path") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path}: not a readable table ({' '.join(str(error).split())})") from error


def check_dataset(path: Path, dataset: Dataset) -> None:
    """Raise UserError if a table of predictions names another data set, or classes of another kind."""
    own = dataset if path.suffix == ".csv" else dataset_of_table(path)
    if (own.classes, own.target) != (dataset.classes, dataset.target):
        raise UserError(
            f"{path}: predicts the classes of {own.name} ({_some(own.classes)}), expected those of {dataset.name} "
            f"({_some(dataset.classes)}); give a table of that data set"
        )


def _some(classes: tuple[str, ...]) -> str:
    return ", ".join(classes) if len(classes) <= 8 else f"{', '.join(classes[:7])}, ... {len(classes)} in all"


def read_predictions(path: Path, dataset: Dataset | None = None) -> pd.DataFrame:
    """Read a table that `write_predictions` wrote, of `dataset`; None: of the one that it names.

    Raises UserError for a missing file or column, ids that are not integers, duplicate keys, and a table that names
    another data set.
    """
    if dataset is None:
        dataset = dataset_of_table(path)
    elif path.is_file():
        check_dataset(path, dataset)
    if path.suffix == ".csv":
        ids = ["eeg_id"]
        table = read_submission(path, ids, dataset)
    else:
        ids = list(ID_FIELDS)
        table = read_table(path, [*ids, *dataset.classes])
    twice = table[ids[0]].duplicated()
    if twice.any():
        raise UserError(f"{path}: {ids[0]} {table[ids[0]][twice].iloc[0]} appears twice; expected once")
    if path.suffix != ".csv":
        _check_keys(path, table)
    return table


def read_submission(path: Path, ids: list[str], dataset: Dataset) -> pd.DataFrame:
    """Read a submission: columns `ids`, of which eeg_id may have the data set's own name, and a column per class, named
    by the class. Columns of those names that a table has besides are dropped."""
    own = {"eeg_id": dataset.submission.key}
    columns = dataset.submission.columns(dataset.classes)
    names_of = own["eeg_id"] if dataset.signal == "audio" else None
    whole = [*own.values(), *INTEGER_COLUMNS]
    table = read_table(path, [*(own.get(name, name) for name in ids), *columns], whole, recordings=names_of)
    names = dict(zip(columns, dataset.classes, strict=True)) | {own["eeg_id"]: "eeg_id"}
    others = [name for name in names.values() if name in table and name not in names]
    return table.drop(columns=others).rename(columns=names)


def _check_keys(path: Path, table: pd.DataFrame) -> None:
    """Raise UserError for a key that does not match its ids: some tables are joined by key, others by ids."""
    ids = table[["eeg_id", "eeg_sub_id"]].to_numpy(np.int64)
    made = [sample_key(eeg, sub) for eeg, sub in ids]
    bad = np.flatnonzero(table["key"].to_numpy() != made)
    if bad.size:
        raise UserError(
            f"{path}: row {bad[0]}: key {table['key'].iloc[bad[0]]} is not that of its eeg_id and eeg_sub_id "
            f"({made[bad[0]]}); {bad.size} such rows; the table was changed, predict again"
        )


def read_truth(path: Path, dataset: Dataset = HMS) -> pd.DataFrame:
    """Read the simulator's truth.parquet: eeg_id, eeg_sub_id and the distribution of each row.

    Raises UserError for a missing file or column, a duplicate row, and for a table of predictions given by mistake.
    """
    if not path.is_file():
        if path.exists():
            raise UserError(f"{path}: is a folder, expected a table of the truth; check the path")
        raise UserError(f"{path}: no such file; only simulated data has a truth.parquet")
    keys = ["eeg_id", "eeg_sub_id"]
    table = read_table(path, [*keys, *dataset.classes])
    if "fold" in table:
        raise UserError(f"{path}: is a table of predictions; expected the truth.parquet of simulated data")
    twice = np.flatnonzero(table.duplicated(keys).to_numpy())
    if twice.size:
        key = ", ".join(f"{name} {table[name].iloc[twice[0]]}" for name in keys)
        raise UserError(f"{path}: {key} appears twice; expected once; take the file that hms-dist simulate wrote")
    return table[[*keys, *dataset.classes]]
