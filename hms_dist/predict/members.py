"""Predictions of several models for the same rows, side by side, and the labels for fitting."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.core.logging import LOG
from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.label_rows import read_label_rows
from hms_dist.predict.submissions import read_row_submission
from hms_dist.results.lineage import ModelRecord, Source, check_out_of_fold, named_sources, read_sources
from hms_dist.results.predictions import (
    ID_FIELDS,
    TIME_COLUMN,
    are_probabilities,
    dataset_of_table,
    in_words,
    read_predictions,
)
from hms_dist.shards.index import Index, open_set
from hms_dist.stream.rows.row_tables import read_row_table

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STATED = "out of fold"
"""Statement in the records of tables that name no models."""
SAME_ROWS = "predict the same rows with all models; hms-dist oof joins those of folds"


@dataclass(frozen=True)
class Members:
    """Predictions of each model of an ensemble."""

    paths: tuple[Path, ...]
    ids: pd.DataFrame
    """key, eeg_id, eeg_sub_id of the rows, in the order of the first table."""
    folds: Ints
    """Fold [rows] that all tables agree on; -1 where one has none, or another."""
    probabilities: Floats
    """[models, rows, classes]; each row sums to 1 where targets are shares."""
    sources: tuple[tuple[Source, ...], ...]
    """Models behind each table; empty for a table without records."""
    dataset: Dataset = HMS
    """The data set whose classes they predict."""

    @property
    def digests(self) -> list[list[str]]:
        """SHA-256 of the weights behind each table, sorted."""
        return [sorted({source.model.weights for source in sources}) for sources in self.sources]


@dataclass(frozen=True)
class Labelled:
    """Members whose rows were all predicted by models that had not seen their patient, with the votes."""

    members: Members
    targets: Floats
    """Targets [rows, classes]: `Index.targets`."""
    patients: Ints
    """patient_id [rows]; no patient is in two folds."""
    shards: str
    """Fingerprint of the shard set, or of the table, that the labels come from."""

    @property
    def folds(self) -> list[int]:
        """Numbers of the folds that have rows, ascending."""
        return np.unique(self.members.folds).tolist()

    def held_out(self, fold: int) -> NDArray[np.bool_]:
        """Mask [rows] of a fold."""
        return self.members.folds == fold


def read_members(
    paths: Sequence[Path], *, submissions: bool = False, index: Index | None = None, dataset: Dataset | None = None
) -> Members:
    """Read Parquet tables of the same rows, in any order.

    `submissions`: Kaggle's .csv files are allowed too. They name only the EEG, which then identifies rows. `index`:
    .csv files are allowed as predictions of rows of this shard set (`read_row_submission`). `dataset`: that of all
    tables; None: that of the shard set, or of the first .parquet table. Raises UserError naming the
    table if it is given twice, and the number of rows if its keys differ from those of the first or a row is not a
    probability distribution; also as `read_predictions`.
    """
    places = [path.resolve() for path in paths]
    twice = [path for path, place in zip(paths, places, strict=True) if places.count(place) > 1]
    if twice:
        raise UserError(f"--predictions: {twice[0]} is listed twice and would be counted twice; name each table once")
    if dataset is None:
        dataset = _dataset_of(paths) if index is None else index.dataset
    by_eeg = submissions and any(path.suffix == ".csv" for path in paths)
    tables = [_read(path, dataset, by_eeg=by_eeg, index=index) for path in paths]
    first = tables[0]
    folds = first["fold"].to_numpy(np.int64, na_value=-1)
    probabilities = []
    for path, unordered in zip(paths, tables, strict=True):
        _check_keys(path, unordered["key"], paths[0], first["key"])
        table = unordered.set_index("key").loc[first["key"]]
        folds = np.where(folds == table["fold"].to_numpy(np.int64, na_value=-1), folds, -1)
        probabilities.append(table[list(dataset.classes)].to_numpy(np.float64))
    stacked = np.stack(probabilities)
    if dataset.target == "shares":
        stacked /= stacked.sum(axis=-1, keepdims=True)
    sources = tuple(read_sources(path) if path.suffix == ".parquet" else () for path in paths)
    columns = [*ID_FIELDS[:3], *([TIME_COLUMN] if TIME_COLUMN in first else ())]
    return Members(tuple(paths), first[columns], folds, stacked, sources, dataset)


def read_labelled(paths: Sequence[Path], labels: str, *, stated: bool = False) -> Labelled:
    """Read out-of-fold tables with the labels of a shard set, or of a table like train.csv, for fitting.

    Only predictions for patients that their models had not seen are accepted: each table must name its models, and each
    row a fold that they held out. `stated`: a table without such a record is accepted on the word of the user, and the
    result records that. The tables must agree on the fold of each row, and each patient must have one fold, so that
    cross-validation over these folds is one over patients. Raises UserError naming the table otherwise.
    """
    targets, patients, fingerprint, members = _with_labels(paths, labels)
    by_key = pd.Series(patients, members.ids["key"])
    own = []
    for path in paths:
        frame = read_predictions(path, members.dataset)
        folds = frame["fold"].to_numpy(np.int64, na_value=-1)
        mine = by_key.loc[frame["key"]].to_numpy(np.int64)
        sources = read_sources(path)
        if stated and not sources:
            sources = _stated(path, folds, mine, fingerprint, members.dataset)
        elif not sources:
            sources = named_sources(path, "so they may have trained on its rows (or --out_of_fold stated)")
        check_out_of_fold(path, sources, mine, folds)
        own.append(sources)
    if (members.folds < 0).any():
        key = members.ids["key"].iloc[int((members.folds < 0).argmax())]
        raise UserError(f"--predictions: the tables give row {key} different folds; use models of one split")
    split = pd.Series(members.folds).groupby(patients).nunique()
    if (split > 1).any():
        raise UserError(f"{paths[0]}: patient {split.idxmax()} is in {split.max()} folds; use models of one split")
    return Labelled(replace(members, sources=tuple(own)), targets, patients, fingerprint)


def _with_labels(paths: Sequence[Path], labels: str) -> tuple[Floats, Ints, str, Members]:
    """Targets [rows, classes] and patients [rows] of the tables' rows, fingerprint of the labels, and the members."""
    if not labels.endswith(".csv"):
        manifest, index = open_set(labels)
        members = read_members(paths, dataset=index.dataset)
        rows = read_row_table(paths[:1], index).rows
        return index.targets[rows], index.ids("patient_id")[rows], manifest.fingerprint, members
    members = read_members(paths)
    table = read_label_rows(Path(labels), members.dataset)
    places = table.keys.get_indexer(pd.Index(members.ids["key"]))
    if (places < 0).any():
        key = members.ids["key"].iloc[int((places < 0).argmax())]
        raise UserError(f"{labels}: no row for {key} of {paths[0]} ({(places < 0).sum()} such rows); add their labels")
    patients = table.frame["patient_id"].to_numpy(np.int64)
    return table.targets[places], patients[places], table.fingerprint, members


def _stated(path: Path, folds: Ints, patients: Ints, labels: str, dataset: Dataset) -> tuple[Source, ...]:
    """Records of models that, by the word of the user, held out the patients of each fold that they predict."""
    digest, numbers = sha256_of(path), np.unique(folds[folds >= 0]).tolist()
    return tuple(
        Source(
            fold=fold,
            model=ModelRecord(
                run=str(path), weights=digest, shards=labels, fold=fold, num_folds=len(numbers), seed=0,
                patients=frozenset(patients[folds != fold].tolist()), stated=STATED, dataset=dataset.name,
            ),
        )
        for fold in numbers
    )  # fmt: skip


def joined_sources(members: Members) -> tuple[Source, ...]:
    """Models behind all tables; empty, with a warning, if one table has no record: the result would seem free of
    leaks."""
    silent = [path for path, sources in zip(members.paths, members.sources, strict=True) if not sources]
    if silent:
        LOG.warning("%s does not record which models made it, so the result does not either", silent[0])
        return ()
    return tuple(dict.fromkeys(source for sources in members.sources for source in sources))


def _dataset_of(paths: Sequence[Path]) -> Dataset:
    """The data set that the first table names; submissions name none."""
    stating = [path for path in paths if path.suffix == ".parquet"]
    return dataset_of_table(stating[0]) if stating else HMS


def _read(path: Path, dataset: Dataset, *, by_eeg: bool, index: Index | None) -> pd.DataFrame:
    """Read one table. `by_eeg`: also a submission; the EEG is the key of its rows, the only row of that EEG. `index`:
    also a submission, of its rows."""
    is_csv = path.suffix == ".csv"
    if path.suffix != ".parquet" and not (is_csv and (by_eeg or index is not None)):
        raise UserError(f"{path}: expected a .parquet table of predictions; write one with hms-dist predict")
    is_of_rows = is_csv and index is not None
    table = read_row_submission(path, index) if is_of_rows and index else read_predictions(path, dataset)
    if by_eeg:
        twice = table["eeg_id"].duplicated()
        if twice.any():
            raise UserError(
                f"{path}: has several rows of EEG {table['eeg_id'][twice].iloc[0]}, submissions one; leave the .csv "
                "out, or this table"
            )
        table = table.assign(
            key=table["eeg_id"].astype(str), eeg_sub_id=0, fold=pd.array([pd.NA] * len(table), "Int64")
        )
    values = table[list(dataset.classes)].to_numpy(np.float64)
    bad = np.flatnonzero(~are_probabilities(values, dataset, 1e-3))
    if bad.size:
        key = table["key"].iloc[bad[0]]
        raise UserError(f"{path}: key {key}: expected {in_words(dataset)} ({bad.size} such rows)")
    return table


def _check_keys(path: Path, keys: "pd.Series[str]", first: Path, expected: "pd.Series[str]") -> None:
    lacking, beyond = expected[~expected.isin(keys)], keys[~keys.isin(expected)]
    if len(lacking):
        raise UserError(
            f"{path}: lacks {len(lacking)} of {len(expected)} rows of {first}, like {lacking.iloc[0]}; {SAME_ROWS}"
        )
    if len(beyond):
        raise UserError(f"{path}: has {len(beyond)} rows that {first} lacks, like {beyond.iloc[0]}; {SAME_ROWS}")
