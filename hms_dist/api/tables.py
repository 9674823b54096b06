"""Tables of predictions: `hms_dist.score` and `hms_dist.ensemble`."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from hms_dist.config.load import from_dict
from hms_dist.datasets import HMS, Dataset, dataset_of
from hms_dist.predict.ensemble import Ensemble, apply, fit
from hms_dist.predict.members import read_labelled
from hms_dist.predict.score import Score, scored
from hms_dist.results.predictions import dataset_of_table, read_predictions, write_predictions

_DATASET = "hms_dist.dataset"
"""Key of the description of a data set other than HMS in the attributes of a DataFrame."""


def score(
    predictions: pd.DataFrame | str | Path,
    labels: str | Path,
    *,
    rows: Literal["held_out", "all"] = "held_out",
    truth: str | Path | None = None,
    num_draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Score predictions with the metric of the data set, as `hms-dist score` does; for HMS Kaggle's KL, in nats.

    `predictions`: a table (.parquet, .csv), or a DataFrame as `model.predict` returns it. `labels`: the folder of a
    shard set, or a label table. The other options are those of `hms-dist score`.

    Returns what the command writes as JSON: `kl`, `num_rows`, `warnings`, ... Raises UserError for tables that do not
    fit each other.
    """
    with _stored([predictions]) as (path,):
        values = {"predictions": path, "labels": labels, "rows": rows, "truth": truth}
        options = {"num_draws": num_draws, "level": level, "seed": seed}
        return scored(from_dict(Score, _plain(values) | options))


def ensemble(
    predictions: Sequence[pd.DataFrame | str | Path],
    *,
    out: str | Path | None = None,
    method: Literal["mean", "geometric", "rank_mean"] | None = None,
    weights: str | Path | None = None,
    labels: str | Path | None = None,
) -> pd.DataFrame:
    """Pool predictions of the same rows, as `hms-dist ensemble` does.

    `predictions`: tables (.parquet; for a submission also .csv), or DataFrames as `model.predict` returns them. `out`:
    also write the result there; a fit writes its weights beside it. `weights`: "fit" (with the shard set `labels`), or
    the file of an earlier fit. None: equal weights.

    Returns the table: key, eeg_id, eeg_sub_id, fold, a probability per class; of an `out` ending in .csv the columns of
    a submission. Raises UserError for tables that do not fit each other.
    """
    with tempfile.TemporaryDirectory() as folder, _stored(predictions) as paths:
        path = Path(folder) / "ensemble.parquet" if out is None else Path(out)
        values = {"out": path, "method": method, "weights": weights, "labels": labels}
        command = from_dict(Ensemble, _plain(values) | {"predictions": [str(each) for each in paths]})
        if command.weights == "fit" and command.labels is not None:
            fit(command, read_labelled(command.predictions, command.labels))
        else:
            apply(command)
        if path.suffix == ".csv":
            return pd.read_csv(path)
        dataset = dataset_of_table(path)
        return with_dataset(read_predictions(path, dataset), dataset)


def with_dataset(table: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """Record the data set of a table of predictions in its attributes; returns the table."""
    if dataset != HMS:
        table.attrs[_DATASET] = dataset.stored.to_json()
    return table


@contextmanager
def _stored(tables: Sequence[pd.DataFrame | str | Path]) -> Iterator[list[Path]]:
    """Yield the paths of tables; DataFrames are written to a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, table in enumerate(tables):
            if isinstance(table, pd.DataFrame):
                path = Path(folder) / f"table-{number}.parquet"
                description = table.attrs.get(_DATASET)
                dataset = HMS if description is None else dataset_of(description, "predictions")
                write_predictions(path, table, dataset=dataset)
            else:
                path = Path(table)
            paths.append(path)
        yield paths


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """Options that are given, with paths as text."""
    return {name: str(value) for name, value in values.items() if value is not None}
