"""Filters that remove rows from a run's training part before any selection, as the two-stage course project's second
stage.

The project's code and its text describe different quantities; both are implemented. A filter is computed once, from the
votes of the index and, for the model's loss, from tables of out-of-fold predictions.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.results.metrics import row_kl
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.row_tables import read_row_table

VOTE_FLOOR = 1e-5
"""Added to every vote count, as in the two-stage course project, so that its logarithm exists."""
FEW = 0.1
"""A filter that keeps a smaller fraction of the rows gets a warning."""


@dataclass(frozen=True, kw_only=True)
class FilterConfig:
    """Filters of the training rows of the whole run. Both may be given; each is applied to all rows."""

    label_peakedness: float | None = None
    """Keep rows whose `label_peakedness` is below this; 9 in the two-stage course project's code. None: keep all."""
    model_loss: float | None = None
    """Keep rows whose KL between votes and out-of-fold prediction is below this (the two-stage course project's text).
    None: keep all."""
    predictions: tuple[Path, ...] = ()
    """For model_loss: predictions.parquet of first-stage runs that together cover all training rows, each predicted by
    a model that trained neither on its patient nor on the run's validation fold (`left_out_folds`)."""

    def __post_init__(self) -> None:
        if (self.model_loss is None) != (not self.predictions):
            raise ValueError("filters.predictions: model_loss needs them, and nothing else uses them")


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """Result of a filter."""

    name: str
    threshold: float
    num_kept: int
    num_rows: int

    def log(self) -> None:
        """Log one line; a warning if the filter keeps everything, or very little."""
        text = f"filter {self.name} below {self.threshold:g} keeps {self.num_kept} of {self.num_rows} training rows"
        if self.num_kept == self.num_rows:
            LOG.warning("%s: it does nothing", text)
        elif self.num_kept < FEW * self.num_rows:
            LOG.warning("%s: fewer than %g %%", text, 100 * FEW)
        else:
            LOG.info("%s", text)


def filter_rows(index: Index, rows: Rows, filters: FilterConfig) -> tuple[Rows, list[Filtered]]:
    """Return the training rows [n] that pass all filters, and the result of each filter.

    Raises UserError for unusable predictions, and if no row is left.
    """
    kept, reports = np.ones(len(rows), bool), []
    for name, values, threshold in _measured(index, rows, filters):
        passed = values < threshold
        kept &= passed
        reports.append(Filtered(name=name, threshold=threshold, num_kept=int(passed.sum()), num_rows=len(rows)))
    if reports and not kept.any():
        counts = ", ".join(f"{report.name} below {report.threshold:g} keeps {report.num_kept}" for report in reports)
        raise UserError(f"filters leave none of {len(rows)} training rows ({counts}); raise their thresholds")
    return rows[kept], reports


def label_peakedness(votes: NDArray[np.int64]) -> NDArray[np.float64]:
    """KL(uniform || label) of rows of raw votes [rows, classes], nats: the label is (votes + 1e-5), normalised.

    It grows with the number of voters, also for unanimous rows: pass raw votes, not shares.
    """
    floored = votes + VOTE_FLOOR
    label = floored / floored.sum(axis=1, keepdims=True)
    return np.asarray(-np.log(votes.shape[1]) - np.log(label).mean(axis=1))


def out_of_fold_loss(index: Index, rows: Rows, paths: tuple[Path, ...]) -> NDArray[np.float64]:
    """KL [rows] between the votes of rows and predictions by models that held out their patients.

    Raises UserError if a row of the tables has no fold (its model trained on it) or a training row is in no table.
    """
    table = read_row_table(paths, index, ["fold"])
    folds = table.frame["fold"].to_numpy(np.float64, na_value=-1)
    seen = ~(folds >= 0)
    if seen.any():
        path, key = table.frame.loc[int(seen.argmax()), ["path", "key"]]
        raise UserError(
            f"{path}: key {key}: no fold, so its model may have trained on it ({seen.sum()} such rows of {len(seen)}); "
            "give the predictions.parquet of runs with a validation fold"
        )
    found = table.probabilities_of(rows)
    absent = np.isnan(found).any(axis=1)
    if absent.any():
        key = index.frame["key"].iloc[rows[absent.argmax()]]
        raise UserError(
            f"filters.predictions: no prediction for {absent.sum()} of {len(rows)} training rows, like {key}; "
            "give the tables of all folds"
        )
    return row_kl(index.targets[rows], found)


def _measured(index: Index, rows: Rows, filters: FilterConfig) -> list[tuple[str, NDArray[np.float64], float]]:
    """Name, value of each row and threshold of the active filters."""
    found = []
    if filters.label_peakedness is not None:
        found.append(("label_peakedness", label_peakedness(index.votes[rows]), filters.label_peakedness))
    if filters.model_loss is not None:
        found.append(("model_loss", out_of_fold_loss(index, rows, filters.predictions), filters.model_loss))
    return found
