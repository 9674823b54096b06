"""Bootstrap intervals over patients, with keyed draws: the same input gives the same interval.

Percentile intervals of Efron (1979). Patients are resampled because rows of one patient are correlated; resampling rows
would give too narrow intervals.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.keyed import keyed_uniform

Floats = NDArray[np.float64]
Interval = tuple[float, float]
LEVEL = 0.95
"""Share of the draws inside an interval."""
NUM_DRAWS = 1000
_AT_ONCE = 100
"""Draws that are expanded to rows at once, to bound memory."""
_MOST_UNDEFINED = 0.05
"""Largest share of draws without a value for which there is an interval: some may have no patient of a class."""


@dataclass(frozen=True, kw_only=True)
class PatientDraws:
    """Draws of patients with replacement, for tables with these rows."""

    patients: NDArray[np.int64]
    """Patient of each row [rows]."""
    num_draws: int = NUM_DRAWS
    seed: int = 0

    @cached_property
    def _numbers(self) -> tuple[NDArray[np.int64], int]:
        """Number of the patient of each row, from 0, and the number of patients."""
        found, numbers = np.unique(self.patients, return_inverse=True)
        return numbers, len(found)

    @property
    def num_patients(self) -> int:
        """Number of patients."""
        return self._numbers[1]

    @cached_property
    def times(self) -> Floats:
        """How often each draw has each patient [draws, patients]."""
        number, draws = self.num_patients, np.arange(self.num_draws)[:, None]
        chosen = (keyed_uniform(self.seed, draws, np.arange(number)) * number).astype(np.int64)
        counts = np.bincount((chosen + number * draws).ravel(), minlength=self.num_draws * number)
        return counts.reshape(self.num_draws, number).astype(np.float64)

    def sums(self, values: Floats) -> Floats:
        """Sum of `values` [rows] in each draw [draws]."""
        return self.times @ self.by_patient(values)

    def by_patient(self, values: Floats) -> Floats:
        """Sum of `values` [rows] of each patient [patients]."""
        return np.asarray(np.bincount(self._numbers[0], values, minlength=self.num_patients), np.float64)

    def row_times(self, order: NDArray[np.int64]) -> Iterator[Floats]:
        """How often each draw has each of the rows `order` [some draws, rows], some draws at a time."""
        numbers = self._numbers[0][order]
        for first in range(0, self.num_draws, _AT_ONCE):
            yield self.times[first : first + _AT_ONCE, numbers]


def bootstrap_interval(
    values: Floats,
    patients: NDArray[np.int64],
    *,
    num_draws: int = NUM_DRAWS,
    level: float = LEVEL,
    seed: int = 0,
    weights: Floats | None = None,
) -> Interval | None:
    """Percentile interval of the mean of `values` [rows]; None for a single patient, or if a draw may have no weight.

    Of differences of two tables of the same rows it is their paired bootstrap. `weights` [rows]: of each row in the
    mean; None: 1. `patients` [rows]: the patient of each row. `level`: the fraction of draws inside. Draws are keyed by
    `seed`.
    """
    draws = PatientDraws(patients=patients, num_draws=num_draws, seed=seed)
    weights = np.ones(len(values)) if weights is None else weights
    if not draws.by_patient(weights).min() > 0:
        return None
    return interval_of(draws.sums(values * weights) / draws.sums(weights), draws.num_patients, level)


def interval_of(found: Floats, num_patients: int, level: float = LEVEL) -> Interval | None:
    """Percentile interval of the values [draws]; None for a single patient, or if many draws have no value."""
    known = found[np.isfinite(found)]
    if num_patients < 2 or len(known) < (1 - _MOST_UNDEFINED) * len(found):
        return None
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def rank_areas(labels: NDArray[np.bool_], scores: Floats, times: Floats) -> tuple[Floats, Floats]:
    """Areas under the ROC and the precision-recall curve (average precision) of weighted rows, for each draw.

    `labels` and `scores` [rows] in descending order of the scores; `times` [draws, rows]: weights. NaN for draws
    without both kinds. scikit-learn computes the same, one draw at a time.
    """
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # ties share a threshold
    yes, no = (np.cumsum(times * kind, axis=1)[:, ends] for kind in (labels, ~labels))
    with np.errstate(divide="ignore", invalid="ignore"):
        new_yes, new_no = (np.diff(part, axis=1, prepend=0.0) for part in (yes, no))
        total, others = yes[:, -1], no[:, -1]
        roc = (new_no * (yes - new_yes / 2)).sum(axis=1) / (total * others)
        precision = np.where(new_yes > 0, new_yes * yes / (yes + no), 0.0).sum(axis=1) / total
    return roc, np.where(others > 0, precision, np.nan)
