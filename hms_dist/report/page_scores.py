"""Prediction tables compared with the votes of a shard set: scores, confusion, reliability, and ensemble gains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.results.held_out import ClassScores, Estimate, advantage, class_scores, overall
from hms_dist.results.lineage import held_out_rows, read_sources, statements
from hms_dist.results.metric_kinds import Metric, metric_of
from hms_dist.results.metrics import is_useful
from hms_dist.results.predictions import read_predictions, read_truth
from hms_dist.shards.index import Index, Rows

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The rows of a labelled shard set."""

    location: str
    fingerprint: str
    """Fingerprint of the set."""
    index: Index
    oracle: Floats | None
    """True distribution of each row [samples, classes], for simulated data. None: unknown."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of the software that rendered the set."""

    @property
    def metric(self) -> Metric:
        """The metric of the data set."""
        return metric_of(self.index.dataset)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredTable:
    """A table's predictions of the rows that its model did not see, with the votes."""

    name: str
    metric: Metric
    held_out: bool
    """Whether the rows are recorded as held out; else they are all rows of the table."""
    rows: Rows
    """Numbers of the rows in the shard set [rows], ascending."""
    truth: Floats
    """Targets [rows, classes]."""
    prediction: Floats
    """Predicted probabilities [rows, classes]."""
    num_voters: NDArray[np.int64]
    """Number of votes of each row [rows]."""
    patients: NDArray[np.int64]
    """Patient of each row [rows]."""
    oracle: Floats | None
    """Probabilities from which simulated votes were drawn [rows, classes]. None: the data are not simulated."""
    folds: NDArray[np.int64]
    """Fold of each row [rows]; negative: none."""
    weights: frozenset[str] = frozenset()
    """SHA-256 of the weights of the models behind the table; empty if unknown."""
    statements: tuple[str, ...] = ()
    """Statements of users about models without a record."""

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Scores of `Metric.score`."""
        return self.metric.score(self.truth, self.prediction, self.num_voters, self.oracle)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.metric.classes

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return len(np.unique(self.patients))

    @cached_property
    def constant(self) -> Floats:
        """The constant predictor's table [rows, classes]."""
        return self.metric.constant(self.truth)

    @cached_property
    def estimate(self) -> Estimate:
        """`value` with its interval."""
        return overall(self.metric, self.truth, self.prediction, self.patients)

    @cached_property
    def better_than_constant(self) -> Estimate:
        """How much better it is than the constant predictor."""
        return advantage(self.metric, self.truth, self.prediction, self.constant, self.patients)

    @cached_property
    def class_scores(self) -> list[ClassScores]:
        """Figures of each class."""
        return class_scores(self.metric, self.classes, self.truth, self.prediction, self.patients)

    @property
    def value(self) -> float:
        """The KL or log loss."""
        return float(self.scores[self.metric.name])

    @cached_property
    def row_values(self) -> Floats:
        """KL or log loss of each row [rows]; NaN where nothing is known."""
        return self.metric.rows(self.truth, self.prediction)

    @property
    def is_useful(self) -> bool:
        """Whether it is better than a constant predictor."""
        return is_useful(self.value, self.scores["strata"]["all"][f"constant_{self.metric.name}"])

    @property
    def score_warnings(self) -> list[str]:
        """Reasons why its scores are not meaningful."""
        unknown = [] if self.held_out else ["does not record which rows its models have seen: they may have seen all"]
        return [*unknown, *self.statements, *self.metric.warnings(self.truth, self.prediction, self.folds)]

    @property
    def parts(self) -> Floats:
        """Contribution of each class to the KL, or its own log loss [classes]."""
        return self.metric.parts(self.truth, self.prediction)

    @property
    def confusion(self) -> NDArray[np.int64]:
        """Rows by consensus and most probable class [classes, classes]; or known cells by class, found and missed yes,
        found and missed no [classes, 4]."""
        return np.array(self.metric.evaluation(self.truth, self.prediction)["val_confusion"])


def truth_of(path: Path, index: Index) -> Floats:
    """The simulator's distributions for the rows of `index` [samples, classes].

    Raises UserError if a row is missing, and as `read_truth`.
    """
    table = read_truth(path, index.dataset)
    keys = table["eeg_id"].astype(str) + "-" + table["eeg_sub_id"].astype(str)
    places = pd.Index(keys).get_indexer(pd.Index(index.frame["key"].astype(str)))
    if (places < 0).any():
        key = index.frame["key"].iloc[np.flatnonzero(places < 0)[0]]
        raise UserError(f"{path}: no row for {key} of the shard set; give the truth of the data it was rendered from")
    found = table[list(index.dataset.classes)].to_numpy(np.float64)[places]
    metric_of(index.dataset).rows(index.targets, found, str(path))  # raises for invalid tables
    return found


def read_scored(path: Path, name: str, labels: Labels) -> ScoredTable:
    """Read a table's held-out rows, or all rows if none are recorded as held out, with `labels`.

    Raises UserError for a damaged table and for rows that the shard set lacks.
    """
    dataset = labels.index.dataset
    table, sources = read_predictions(path, dataset), read_sources(path)
    places = pd.Index(labels.index.frame["key"].astype(str)).get_indexer(pd.Index(table["key"].astype(str)))
    if (places < 0).any():
        key = table["key"].iloc[np.flatnonzero(places < 0)[0]]
        raise UserError(f"{path}: row {key} is not in {labels.location}; check --shards")
    folds, patients = table["fold"].to_numpy(np.int64, na_value=-1), labels.index.ids("patient_id")[places]
    unseen = held_out_rows(sources, folds, patients)
    held_out = bool(unseen.any())
    if held_out:
        table, places, folds = table[unseen], places[unseen], folds[unseen]
    prediction = table[list(dataset.classes)].to_numpy(np.float64)
    labels.metric.rows(labels.index.targets[places], prediction, str(path))  # raises for invalid tables
    if not labels.metric.row_weights(labels.index.targets[places]).any():
        raise UserError(f"{path}: no class is known in any of its {len(places)} rows, so they cannot be scored")
    order = np.argsort(places)
    rows = places[order].astype(np.int64)
    return ScoredTable(
        name=name,
        metric=labels.metric,
        held_out=held_out,
        rows=rows,
        truth=labels.index.targets[rows],
        prediction=prediction[order],
        num_voters=labels.index.num_voters[rows],
        patients=labels.index.ids("patient_id")[rows],
        oracle=None if labels.oracle is None else labels.oracle[rows],
        folds=folds[order],
        weights=frozenset(source.model.weights for source in sources),
        statements=tuple(statements(sources)),
    )


@dataclass(frozen=True, kw_only=True)
class Gain:
    """Gain of combining tables, on the rows that they all predict."""

    names: tuple[str, ...]
    """The tables."""
    by: str
    """plain mean, or the table of an ensemble or a stack of them."""
    num_rows: int
    single: tuple[float, ...]
    """KL or log loss of each single table."""
    together: float
    """KL or log loss of the combination."""


def ensemble_gains(tables: Sequence[ScoredTable]) -> list[Gain]:
    """Gains of tables that predict the same rows, in the order of the first of them.

    First the plain mean of the single tables, then each combined table: one whose models include all models of others.
    """
    return [gain for group in by_rows(tables) for gain in _gains(group)]


def by_rows(tables: Sequence[ScoredTable]) -> list[list[ScoredTable]]:
    """Groups of tables that predict the same rows, in the order of the first of each."""
    groups: dict[bytes, list[ScoredTable]] = {}
    for table in tables:
        groups.setdefault(table.rows.tobytes(), []).append(table)
    return list(groups.values())


def _gains(group: list[ScoredTable]) -> list[Gain]:
    singles = [table for table in group if not any(_made_of(table, other) for other in group)]
    found = []
    if len(singles) > 1:
        mean = np.mean([table.prediction for table in singles], axis=0)
        found.append(_gain(singles, "plain mean", singles[0].metric.value(singles[0].truth, mean)))
    for table in group:
        members = [single for single in singles if _made_of(table, single)]
        if members:
            found.append(_gain(members, table.name, table.value))
    return found


def _made_of(table: ScoredTable, other: ScoredTable) -> bool:
    return bool(other.weights) and other.weights < table.weights


def _gain(members: list[ScoredTable], by: str, together: float) -> Gain:
    return Gain(
        names=tuple(table.name for table in members), by=by, num_rows=len(members[0].rows), together=together,
        single=tuple(table.value for table in members),
    )  # fmt: skip
