"""`hms-dist score`: score predictions against labels with Kaggle's metric."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import write_json
from hms_dist.core.keyed import check_seed
from hms_dist.core.logging import LOG
from hms_dist.datasets import Dataset, read_dataset
from hms_dist.labels.label_rows import NUM_VOTES, read_label_rows
from hms_dist.results.bootstrap import bootstrap_interval
from hms_dist.results.lineage import held_out_rows, read_sources, statements
from hms_dist.results.metric_kinds import LogLossMetric, Metric, metric_of
from hms_dist.results.predictions import (
    check_no_input,
    check_place,
    dataset_of_table,
    read_predictions,
    read_truth,
)
from hms_dist.results.yes_no import THRESHOLD, recording_lwlrap
from hms_dist.shards.index import open_set

Floats = NDArray[np.float64]
TARGET = "target of "
"""Before the name of a class: column of its targets."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score predictions with Kaggle's KL metric, as JSON; for independent yes/no classes, with log loss and
    metrics of ranks. Rows without a prediction are left out.

    By default only rows that the table's models have not seen are scored, if their record is known; `not_held_out` has
    the rest. `warnings` lists reasons why the score may not be meaningful; they are logged too.
    """

    predictions: Path
    """Table of predictions, .parquet or .csv."""
    labels: Path
    """A shard set's folder, or a table like train.csv: eeg_id, patient_id, the votes (or shares, with their number in a
    column num_votes for the scores by votes) and, unless each EEG has one row, eeg_sub_id."""
    rows: Literal["held_out", "all"] = "held_out"
    """held_out: rows of patients that no model behind the table has seen; all rows, with a warning, for tables without
    that record, such as submissions. all: every row."""
    out: Path | None = None
    """JSON file to write. None: print."""
    truth: Path | None = None
    """truth.parquet of simulated data, for the oracle's KL and the fraction of the gap closed. None: omitted."""
    threshold: float | None = None
    """For independent yes/no classes: probability from which a class counts as found, for the balanced accuracy. None:
    0.5."""
    num_draws: int = 1000
    """Bootstrap draws of patients for the confidence intervals. 0: no intervals."""
    level: float = 0.95
    """Confidence level of the intervals, 0 to 1."""
    seed: int = 0
    """Seed of the draws; 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        if self.num_draws < 0:
            raise ValueError(f"num_draws: expected 0 or more, found {self.num_draws}")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold: expected 0 to 1, found {self.threshold}")
        if not 0 < self.level < 1:
            raise ValueError(f"level: expected above 0 and below 1, found {self.level}")
        check_seed("seed", self.seed)


def run(command: Score) -> None:
    """Run the command `score`."""
    if command.out is None:
        print(json.dumps(scored(command), indent=1))
        return
    check_place(command.out)
    check_no_input(command.out, [command.predictions, command.labels, *([command.truth] if command.truth else [])])
    write_json(command.out, scored(command))


def scored(command: Score) -> dict[str, Any]:
    """Compute the scores that `run` writes. Raises UserError for tables that do not fit each other."""
    labels, dataset = _labels(command.labels, command.predictions)
    predictions, metric = read_predictions(command.predictions, dataset), _metric(command, dataset)
    keys = ["eeg_id", "eeg_sub_id"] if "eeg_sub_id" in predictions else ["eeg_id"]
    if keys == ["eeg_id"] and labels["eeg_id"].duplicated().any():
        raise UserError(f"{command.predictions}: one row per EEG, but {command.labels} has several; score a .parquet")
    own_votes = [
        *keys,
        *dataset.classes,
        *(["fold"] if "fold" in predictions else []),
    ]  # vote columns of the table itself are ignored
    joined = _join(predictions[own_votes], labels, keys, command.labels)
    held_out = _held_out(command.predictions, joined)
    is_all = command.rows == "all" or held_out is None or not held_out.any()
    mask = np.ones(len(joined), bool) if is_all or held_out is None else held_out
    chosen, rest = joined.loc[mask].reset_index(drop=True), joined.loc[~mask]
    result: dict[str, Any] = {"rows": "all" if is_all else "held_out", **_scores(command, chosen, dataset, metric)}
    if len(rest):
        result["not_held_out"] = _rest(command.predictions, rest, dataset, metric)
    result["num_rows_held_out"] = None if held_out is None else int(held_out.sum())
    result["num_rows_without_prediction"] = len(labels) - len(joined)
    result["warnings"] = [
        *_unseen_warnings(joined, held_out, is_all=is_all),
        *_statements(command.predictions),
        *_score_warnings(chosen, dataset, metric),
    ]
    for line in result["warnings"]:
        LOG.warning("%s: %s", command.predictions, line)
    return result


def _metric(command: Score, dataset: Dataset) -> Metric:
    """The metric with the threshold asked for. Raises UserError for a threshold where targets are shares."""
    metric = metric_of(dataset)
    if isinstance(metric, LogLossMetric):
        return LogLossMetric(dataset.classes, THRESHOLD if command.threshold is None else command.threshold)
    if command.threshold is not None:
        raise UserError(f"threshold: the targets of data set {dataset.name} are shares of votes; leave it out")
    return metric


def _scores(command: Score, joined: pd.DataFrame, dataset: Dataset, metric: Metric) -> dict[str, Any]:
    targets, counts, found = _compared(joined, dataset)
    patients = joined["patient_id"].to_numpy(np.int64)
    truth = None if command.truth is None else _truth(command.truth, joined, dataset)
    values, weights = metric.rows(targets, found, str(command.predictions)), metric.row_weights(targets)
    if not weights.any():
        raise UserError(f"{command.labels}: no class is known in any of the {len(joined)} rows to score")
    if truth is not None:
        metric.rows(targets, truth, str(command.truth))  # raises for invalid tables
    result = metric.score(targets, found, counts, truth)
    if "lwlrap" in result and dataset.signal == "audio":
        result["lwlrap"] = recording_lwlrap(joined["eeg_id"].to_numpy(np.int64), targets, found)
    for name, mask in metric.strata(counts).items() if command.num_draws else ():
        result["strata"][name][f"{metric.name}_interval"] = bootstrap_interval(
            np.nan_to_num(values[mask]), patients[mask], num_draws=command.num_draws, level=command.level,
            seed=command.seed, weights=weights[mask],
        )  # fmt: skip
    return result


def _compared(joined: pd.DataFrame, dataset: Dataset) -> tuple[Floats, Floats, Floats]:
    """Targets [rows, classes], numbers of votes or known classes [rows] (NaN: unknown), and predictions [rows,
    classes]."""
    targets = joined[[f"{TARGET}{name}" for name in dataset.classes]].to_numpy(np.float64)
    return targets, joined[NUM_VOTES].to_numpy(np.float64), joined[list(dataset.classes)].to_numpy(np.float64)


def _rest(path: Path, joined: pd.DataFrame, dataset: Dataset, metric: Metric) -> dict[str, Any]:
    """Number and metric of the rows that are not held out."""
    targets, _, found = _compared(joined, dataset)
    values, weights = metric.rows(targets, found, str(path)), metric.row_weights(targets)
    value = float(np.average(np.nan_to_num(values), weights=weights)) if weights.any() else None
    return {"num_rows": len(values), metric.name: value}


def _held_out(path: Path, joined: pd.DataFrame) -> NDArray[np.bool_] | None:
    """Mask of the rows that the table's models have not seen; None if that is not recorded."""
    if "fold" not in joined:
        return None
    folds = joined["fold"].to_numpy(np.int64, na_value=-1)
    return held_out_rows(read_sources(path), folds, joined["patient_id"].to_numpy(np.int64))


def _unseen_warnings(joined: pd.DataFrame, held_out: NDArray[np.bool_] | None, *, is_all: bool) -> list[str]:
    """Warnings that models may have trained on scored rows, or on rows left out."""
    if held_out is None:
        return ["the table does not record which rows its models have seen: they may have trained on all of them"]
    num_seen, num_rows = int((~held_out).sum()), len(joined)
    if num_seen == 0:
        return []
    if is_all:
        return [
            f"{num_seen} of {num_rows} rows are not known to be held out: models may have trained on their patients, "
            "so the KL is not an estimate for new ones"
        ]
    return [f"{num_seen} of {num_rows} rows are not scored, since models may have trained on their patients"]


def _statements(path: Path) -> list[str]:
    return [] if path.suffix == ".csv" else statements(read_sources(path))


def _score_warnings(joined: pd.DataFrame, dataset: Dataset, metric: Metric) -> list[str]:
    targets, _, found = _compared(joined, dataset)
    folds = joined["fold"].to_numpy(np.int64, na_value=-1) if "fold" in joined else None
    return metric.warnings(targets, found, folds)


def _labels(path: Path, predictions: Path) -> tuple[pd.DataFrame, Dataset]:
    """Label rows (ids, patient, targets, number of votes) of a shard set or a table, and their data set: that of the
    set, else the one that the predictions name, else the one described next to the table."""
    if path.is_dir():
        _, index = open_set(path)
        if not index.labelled:
            raise UserError(f"{path}: the rows have no votes; scoring needs labelled rows")
        frame, dataset = index.frame[["eeg_id", "eeg_sub_id", "patient_id"]], index.dataset
        targets, num_votes = index.targets, index.num_voters.astype(np.float64)
    else:
        named = predictions.suffix == ".parquet"
        dataset = dataset_of_table(predictions) if named else read_dataset(path.parent)
        table = read_label_rows(path, dataset)
        frame, targets, num_votes = table.frame, table.targets, table.num_votes
    names = [f"{TARGET}{name}" for name in dataset.classes]
    columns = [frame.reset_index(drop=True).astype("int64"), pd.DataFrame(targets, columns=names)]
    return pd.concat(columns, axis=1).assign(**{NUM_VOTES: num_votes}), dataset


def _join(left: pd.DataFrame, right: pd.DataFrame, keys: list[str], where: Path) -> pd.DataFrame:
    """Join the columns of `right` to the rows of `left`. Raises UserError if a row has no counterpart."""
    columns = [name for name in right if name in keys or name not in left]
    joined = left.merge(right[columns], on=keys, how="left", indicator="found")
    absent = np.flatnonzero((joined["found"] != "both").to_numpy())
    if absent.size:
        names = ", ".join(f"{name} {joined[name].iloc[absent[0]]}" for name in keys)
        raise UserError(f"{where}: no row for {names} ({absent.size} such rows); are these the right tables?")
    return joined.drop(columns="found")


def _truth(path: Path, joined: pd.DataFrame, dataset: Dataset) -> Floats:
    names = {name: f"true_{name}" for name in dataset.classes}
    truth = read_truth(path, dataset).rename(columns=names)
    keys = ["eeg_id", "eeg_sub_id"]
    return _join(joined[keys], truth, keys, path)[list(names.values())].to_numpy(np.float64)
