"""Figures of held-out predictions with bootstrap intervals, overall and class by class, for reports and model cards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.results.bootstrap import (
    LEVEL,
    NUM_DRAWS,
    Interval,
    PatientDraws,
    bootstrap_interval,
    interval_of,
    rank_areas,
)
from hms_dist.results.metric_kinds import Metric
from hms_dist.results.yes_no import class_auprc, class_auroc

Floats = NDArray[np.float64]
CLASS_DRAWS = 200
"""Draws for the figures of classes, each of which needs all rows in order."""
MOST_CLASSES = 24
"""With more classes, figures of classes have no intervals: they would take minutes."""
NUM_BINS = 10
"""Number of bins of equal width for predicted probabilities."""


@dataclass(frozen=True)
class Estimate:
    """A figure and its bootstrap interval."""

    value: float
    interval: Interval | None = None
    """None: undefined, for example for a single patient."""

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON value; null for a figure that the rows do not define."""
        value = self.value if np.isfinite(self.value) else None
        return {"value": value, "interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class Reliability:
    """Predicted probabilities, sorted into bins: arrays [non-empty bins]."""

    predicted: Floats
    """Mean prediction [bins]."""
    observed: Floats
    """Mean share of the votes, or share of yes [bins]."""
    counts: Floats

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance of the two, weighted by counts (Guo et al., 2017, for shares of
        votes)."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def reliability(truth: Floats, prediction: Floats) -> Reliability:
    """Compare shares of votes with predictions, arrays of the same shape; every known value counts."""
    known = np.isfinite(truth)  # all, where targets are shares
    values, shares = prediction[known], truth[known]
    bins = np.minimum((values * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS).astype(np.float64)
    filled = counts > 0
    sums = [np.bincount(bins, table, NUM_BINS)[filled] for table in (values, shares)]
    return Reliability(sums[0] / counts[filled], sums[1] / counts[filled], counts[filled])


def overall(metric: Metric, truth: Floats, found: Floats, patients: NDArray[np.int64]) -> Estimate:
    """The metric's value of tables [rows, classes]."""
    weights = metric.row_weights(truth)
    return _mean(np.nan_to_num(metric.rows(truth, found)), weights, patients)


def advantage(metric: Metric, truth: Floats, found: Floats, other: Floats, patients: NDArray[np.int64]) -> Estimate:
    """How much lower the metric is of `found` than of `other` [rows, classes], with the interval of a paired
    bootstrap."""
    differences = metric.rows(truth, other) - metric.rows(truth, found)
    return _mean(np.nan_to_num(differences), metric.row_weights(truth), patients)


def _mean(values: Floats, weights: Floats, patients: NDArray[np.int64]) -> Estimate:
    return Estimate(
        float(np.average(values, weights=weights)),
        bootstrap_interval(values, patients, num_draws=NUM_DRAWS, level=LEVEL, weights=weights),
    )


def verdict(better_by: Estimate, metric: Metric, other: str) -> tuple[str, bool]:
    """A sentence that compares predictions with `other`, and whether they are worse."""
    amount, interval = abs(better_by.value), better_by.interval
    if interval is None:
        known = "no interval: a bootstrap over patients needs several"
    elif better_by.value < 0:
        known = f"{LEVEL:.0%} interval {-interval[1]:.4f} to {-interval[0]:.4f}"
    else:
        known = f"{LEVEL:.0%} interval {interval[0]:.4f} to {interval[1]:.4f}"
    is_worse = better_by.value <= 0
    text = f"{'worse' if is_worse else 'better'} than {other} by {amount:.4f} {metric.title} ({known})"
    if interval is not None and interval[0] < 0 < interval[1]:
        text += "; the interval includes 0, so these patients do not settle which is better"
    return text, is_worse


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Figures of one class."""

    name: str
    num_rows: int
    """Rows of the class: with most votes for it, or with a known yes."""
    part: Estimate
    """Its contribution to the KL, or its own log loss."""
    auroc: Estimate
    auprc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    calibration_error: float

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON value."""
        figures = ("part", "auroc", "auprc", "sensitivity", "specificity")
        error = self.calibration_error if np.isfinite(self.calibration_error) else None
        return {
            "num_rows": self.num_rows,
            **{name: getattr(self, name).to_json() for name in figures},
            "calibration_error": error,
        }


def class_scores(
    metric: Metric, classes: Sequence[str], truth: Floats, found: Floats, patients: NDArray[np.int64]
) -> list[ClassScores]:
    """Figures of each class, one against the others, from tables [rows, classes].

    A row is of the class with most votes, and assigned to the most probable one; for independent yes/no classes, each
    is assigned at the metric's threshold.
    """
    labels, decisions = metric.labels(truth), metric.decisions(found)
    roc, precision, cells = class_auroc(labels, found), class_auprc(labels, found), metric.cells(truth, found)
    draws_of = _draws(patients) if len(classes) <= MOST_CLASSES else lambda known: None
    scores = []
    for number, name in enumerate(classes):
        known = np.isfinite(truth[:, number])
        draws = draws_of(known)
        is_class, decided = labels[known, number] == 1, decisions[known, number]
        areas = _areas(is_class, found[known, number], draws)
        error = reliability(truth[known, number], found[known, number]).error if known.any() else np.nan
        scores.append(
            ClassScores(
                name=name,
                num_rows=int(is_class.sum()),
                part=_ratio(cells[known, number], known[known], draws),
                auroc=Estimate(float(roc[number]), areas[0]),
                auprc=Estimate(float(precision[number]), areas[1]),
                sensitivity=_ratio(decided & is_class, is_class, draws),
                specificity=_ratio(~decided & ~is_class, ~is_class, draws),
                calibration_error=error,
            )
        )
    return scores


def _draws(patients: NDArray[np.int64]) -> Callable[[NDArray[np.bool_]], PatientDraws | None]:
    """Makes the draws of the patients of some rows; those of all rows once. None without rows."""
    of_all = PatientDraws(patients=patients, num_draws=CLASS_DRAWS)

    def draws_of(known: NDArray[np.bool_]) -> PatientDraws | None:
        if known.all():
            return of_all
        return PatientDraws(patients=patients[known], num_draws=CLASS_DRAWS) if known.any() else None

    return draws_of


def _areas(
    labels: NDArray[np.bool_], scores: Floats, draws: PatientDraws | None
) -> tuple[Interval | None, Interval | None]:
    """Intervals of the areas under the ROC and the precision-recall curve."""
    if draws is None or labels.all() or not labels.any():
        return None, None
    order = np.argsort(-scores, kind="stable")
    found = [rank_areas(labels[order], scores[order], times) for times in draws.row_times(order)]
    roc, precision = (np.concatenate(part) for part in zip(*found, strict=True))
    return interval_of(roc, draws.num_patients), interval_of(precision, draws.num_patients)


def _ratio(values: NDArray[np.generic], weights: NDArray[np.bool_], draws: PatientDraws | None) -> Estimate:
    """Sum of `values` [rows] by the sum of `weights` [rows]."""
    sums, counts = values.astype(np.float64), weights.astype(np.float64)
    if not counts.sum() > 0:
        return Estimate(np.nan)
    value = float(sums.sum() / counts.sum())
    if draws is None:
        return Estimate(value)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = draws.sums(sums) / draws.sums(counts)
    return Estimate(value, interval_of(found, draws.num_patients))


def held_out_figures(
    metric: Metric, classes: Sequence[str], truth: Floats, found: Floats, patients: NDArray[np.int64]
) -> dict[str, Any]:
    """All of these figures of tables [rows, classes] as a JSON value."""
    constant = metric.constant(truth)
    return {
        "metric": metric.name,
        "num_rows": len(truth),
        "num_patients": len(np.unique(patients)),
        "level": LEVEL,
        metric.name: overall(metric, truth, found, patients).to_json(),
        f"constant_{metric.name}": metric.value(truth, constant),
        "better_than_constant_by": advantage(metric, truth, found, constant, patients).to_json(),
        "classes": {
            item.name: item.to_json() for item in class_scores(metric, classes, truth, found, patients)
        },
    }  # fmt: skip
