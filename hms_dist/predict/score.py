"""`hms-dist score`: predictions against labels, by Kaggle's metric."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.errors import UserError
from hms_dist.files import write_json
from hms_dist.labels import CLASSES, VOTE_COLUMNS, num_voters, read_labels, targets_of
from hms_dist.metrics import bootstrap_interval, row_kl, score, strata
from hms_dist.predictions import check_no_input, check_place, read_predictions, read_truth
from hms_dist.run import check_seed
from hms_dist.shards.index import open_set


@dataclass(frozen=True, kw_only=True)
class Score:
    """Score predictions with Kaggle's KL metric, as JSON. Rows without a prediction are left out.

    num_rows_held_out says how many of the rows the table's models held out; they may have trained on the others. A
    submission does not say it.
    """

    predictions: Path
    """Table of predictions, .parquet or .csv."""
    labels: Path
    """A shard set's folder, or a table like train.csv."""
    out: Path | None = None
    """File to write the JSON to. None: it is printed."""
    truth: Path | None = None
    """truth.parquet of simulated data, for the oracle's KL and the share of the gap closed. None: left out."""
    num_draws: int = 1000
    """Bootstrap draws of patients that the confidence intervals come from. 0: no intervals."""
    level: float = 0.95
    """Share of the draws that lie within an interval, 0 to 1."""
    seed: int = 0
    """Seed of the draws; 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        if self.num_draws < 0:
            raise ValueError(f"num_draws: expected 0 or more, found {self.num_draws}")
        if not 0 < self.level < 1:
            raise ValueError(f"level: expected above 0 and below 1, found {self.level}")
        check_seed("seed", self.seed)


def run(command: Score) -> None:
    """The verb `score`."""
    if command.out is None:
        print(json.dumps(scored(command), indent=1))
        return
    check_place(command.out)
    check_no_input(command.out, [command.predictions, command.labels, *([command.truth] if command.truth else [])])
    write_json(command.out, scored(command))


def scored(command: Score) -> dict[str, object]:
    """The scores that `run` gives."""
    predictions = read_predictions(command.predictions)
    labels = _labels(command.labels)
    keys = ["eeg_id", "eeg_sub_id"] if "eeg_sub_id" in predictions else ["eeg_id"]
    if keys == ["eeg_id"] and labels["eeg_id"].duplicated().any():
        raise UserError(f"{command.predictions}: one row an EEG, but {command.labels} has several; score a .parquet")
    said = [*keys, *CLASSES, *(["fold"] if "fold" in predictions else [])]  # votes of a table's own do not count
    joined = _join(predictions[said], labels, keys, command.labels)
    votes = joined[list(VOTE_COLUMNS)].to_numpy(np.int64)
    truth = None if command.truth is None else _truth(command.truth, joined)
    targets, found = targets_of(votes), joined[list(CLASSES)].to_numpy(np.float64)
    values = row_kl(targets, found, str(command.predictions))
    if truth is not None:
        row_kl(targets, truth, str(command.truth))  # for its checks
    result = score(targets, found, num_voters(votes), truth)
    patients = joined["patient_id"].to_numpy(np.int64)
    for name, mask in strata(num_voters(votes)).items() if command.num_draws else ():
        result["strata"][name]["kl_interval"] = bootstrap_interval(
            values[mask], patients[mask], num_draws=command.num_draws, level=command.level, seed=command.seed
        )
    num_held_out = int(joined["fold"].notna().sum()) if "fold" in joined else None
    counts = {"num_rows_held_out": num_held_out, "num_rows_without_prediction": len(labels) - len(joined)}
    return {**result, **counts}


def _labels(path: Path) -> pd.DataFrame:
    """Label rows with votes, of a shard set or a table."""
    if path.is_dir():
        _, index = open_set(path)
        labelled, frame = index.labelled, index.frame
    else:
        table = read_labels(path)
        labelled, frame = table.labelled, table.frame
    if not labelled:
        raise UserError(f"{path}: the rows have no votes; scoring needs labelled rows")
    return frame


def _join(left: pd.DataFrame, right: pd.DataFrame, keys: list[str], where: Path) -> pd.DataFrame:
    """Rows of `left` with the columns of `right` beside them; UserError if a row has no counterpart."""
    columns = [name for name in right if name in keys or name not in left]
    joined = left.merge(right[columns], on=keys, how="left", indicator="found")
    absent = np.flatnonzero((joined["found"] != "both").to_numpy())
    if absent.size:
        names = ", ".join(f"{name} {joined[name].iloc[absent[0]]}" for name in keys)
        raise UserError(f"{where}: no row for {names} ({absent.size} such rows); are these the right tables?")
    return joined.drop(columns="found")


def _truth(path: Path, joined: pd.DataFrame) -> NDArray[np.float64]:
    truth = read_truth(path).rename(columns={name: f"true_{name}" for name in CLASSES})
    keys = ["eeg_id", "eeg_sub_id"]
    return _join(joined[keys], truth, keys, path)[[f"true_{name}" for name in CLASSES]].to_numpy(np.float64)
