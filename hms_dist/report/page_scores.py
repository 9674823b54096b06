"""Prediction tables compared with the votes of a shard set: scores, confusion, reliability, and ensemble gains."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.labels.table import CLASSES
from hms_dist.results.lineage import held_out_rows, read_sources
from hms_dist.results.metrics import class_kl, consensus_confusion, is_useful, kaggle_kl, row_kl, score, score_warnings
from hms_dist.results.predictions import read_predictions, read_truth
from hms_dist.shards.index import Index, Rows

Floats = NDArray[np.float64]
NUM_BINS = 10
"""Number of bins of equal width for predicted probabilities."""


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The rows of a labelled shard set."""

    location: str
    fingerprint: str
    """Fingerprint of the set."""
    index: Index
    oracle: Floats | None
    """True distribution of each row [samples, 6], for simulated data. None: unknown."""


@dataclass(frozen=True, kw_only=True)
class ScoredTable:
    """A table's predictions of the rows that its model did not see, with the votes."""

    name: str
    held_out: bool
    """Whether the rows are recorded as held out; else they are all rows of the table."""
    rows: Rows
    """Rows of the shard set, ascending."""
    truth: Floats
    """Shares of the votes [rows, 6]."""
    prediction: Floats
    """Predicted probabilities [rows, 6]."""
    num_voters: NDArray[np.int64]
    oracle: Floats | None
    folds: NDArray[np.int64]
    """Fold of each row [rows]; negative: none."""
    weights: frozenset[str] = frozenset()
    """SHA-256 of the weights of the models behind the table; empty if unknown."""

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Scores of `metrics.score`."""
        return score(self.truth, self.prediction, self.num_voters, self.oracle)

    @cached_property
    def row_kl(self) -> Floats:
        """KL of each row [rows]."""
        return row_kl(self.truth, self.prediction)

    @property
    def is_useful(self) -> bool:
        """Whether it is better than a constant predictor."""
        overall = self.scores["strata"]["all"]
        return is_useful(overall["kl"], overall["constant_kl"])

    @property
    def score_warnings(self) -> list[str]:
        """Reasons why its scores are not meaningful."""
        unknown = [] if self.held_out else ["does not record which rows its models have seen: they may have seen all"]
        return [*unknown, *score_warnings(self.truth, self.prediction, self.folds)]

    @property
    def class_kl(self) -> Floats:
        """Contribution of each class to the KL [6]."""
        return class_kl(self.truth, self.prediction)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Rows by consensus and most probable class [6, 6]."""
        return consensus_confusion(self.truth, self.prediction)


def truth_of(path: Path, index: Index) -> Floats:
    """The simulator's distributions for the rows of `index` [samples, 6].

    Raises UserError if a row is missing, and as `read_truth`.
    """
    table = read_truth(path)
    keys = table["eeg_id"].astype(str) + "-" + table["eeg_sub_id"].astype(str)
    places = pd.Index(keys).get_indexer(pd.Index(index.frame["key"].astype(str)))
    if (places < 0).any():
        key = index.frame["key"].iloc[np.flatnonzero(places < 0)[0]]
        raise UserError(f"{path}: no row for {key} of the shard set; give the truth of the data it was rendered from")
    found = table[list(CLASSES)].to_numpy(np.float64)[places]
    row_kl(index.targets, found, str(path))  # raises for invalid tables
    return found


def read_scored(path: Path, name: str, labels: Labels) -> ScoredTable:
    """Read a table's held-out rows, or all rows if none are recorded as held out, with `labels`.

    Raises UserError for a damaged table and for rows that the shard set lacks.
    """
    table, sources = read_predictions(path), read_sources(path)
    places = pd.Index(labels.index.frame["key"].astype(str)).get_indexer(pd.Index(table["key"].astype(str)))
    if (places < 0).any():
        key = table["key"].iloc[np.flatnonzero(places < 0)[0]]
        raise UserError(f"{path}: row {key} is not in {labels.location}; check --shards")
    folds, patients = table["fold"].to_numpy(np.int64, na_value=-1), labels.index.ids("patient_id")[places]
    unseen = held_out_rows(sources, folds, patients)
    held_out = bool(unseen.any())
    if held_out:
        table, places, folds = table[unseen], places[unseen], folds[unseen]
    prediction = table[list(CLASSES)].to_numpy(np.float64)
    row_kl(labels.index.targets[places], prediction, str(path))  # raises for invalid tables
    order = np.argsort(places)
    rows = places[order].astype(np.int64)
    return ScoredTable(
        name=name,
        held_out=held_out,
        rows=rows,
        truth=labels.index.targets[rows],
        prediction=prediction[order],
        num_voters=labels.index.num_voters[rows],
        oracle=None if labels.oracle is None else labels.oracle[rows],
        folds=folds[order],
        weights=frozenset(source.model.weights for source in sources),
    )


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities of all classes, sorted into bins: arrays [non-empty bins]."""

    predicted: Floats
    """Mean prediction."""
    observed: Floats
    """Mean share of the votes."""
    counts: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by counts (Guo et al., 2017, for shares of
        votes)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def reliability(truth: Floats, prediction: Floats) -> Reliability:
    """Compare shares of votes with predictions, both [rows, classes]; every class of every row is a value."""
    values, shares = prediction.ravel(), truth.ravel()
    bins = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS).astype(np.float64)
    filled = counts > 0
    sums = [np.bincount(bins, table, NUM_BINS)[filled] for table in (values, shares)]
    return Reliability(sums[0] / counts[filled], sums[1] / counts[filled], counts[filled])


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Gain of combining tables, on the rows that they all predict."""

    names: tuple[str, ...]
    """The tables."""
    by: str
    """plain mean, or the table of an ensemble or a stack of them."""
    num_rows: int
    single_kl: tuple[float, ...]
    """KL of each table."""
    together_kl: float
    """KL of the combination."""


def ensemble_gains(tables: Sequence[ScoredTable]) -> list[Gain]:
    """Gains of tables that predict the same rows, in the order of the first of them.

    First the plain mean of the single tables, then each combined table: one whose models include all models of others.
    """
    groups: dict[bytes, list[ScoredTable]] = {}
    for table in tables:
        groups.setdefault(table.rows.tobytes(), []).append(table)
    return [gain for group in groups.values() for gain in _gains(group)]


def _gains(group: list[ScoredTable]) -> list[Gain]:
    singles = [table for table in group if not any(_made_of(table, other) for other in group)]
    found = []
    if len(singles) > 1:
        mean = np.mean([table.prediction for table in singles], axis=0)
        found.append(_gain(singles, "plain mean", kaggle_kl(singles[0].truth, mean)))
    for table in group:
        members = [single for single in singles if _made_of(table, single)]
        if members:
            found.append(_gain(members, table.name, table.scores["kl"]))
    return found


def _made_of(table: ScoredTable, other: ScoredTable) -> bool:
    return bool(other.weights) and other.weights < table.weights


def _gain(members: list[ScoredTable], by: str, together_kl: float) -> Gain:
    return Gain(
        names=tuple(table.name for table in members), by=by, num_rows=len(members[0].rows), together_kl=together_kl,
        single_kl=tuple(table.scores["kl"] for table in members),
    )  # fmt: skip
