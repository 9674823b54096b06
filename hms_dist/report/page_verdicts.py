"""Held-out scores with intervals, verdicts, and comparisons of tables on the rows that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hms_dist.report.page_charts import Level, Spot, interval_chart
from hms_dist.report.page_scores import ScoredTable, by_rows
from hms_dist.report.page_training import NONE
from hms_dist.results.held_out import Estimate, advantage, verdict

MAX_SENTENCES = 12
"""With more tables than this, the verdicts of the others are collapsed."""


@dataclass(frozen=True)
class Verdict:
    """A sentence about a table."""

    text: str
    is_worse: bool


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two tables on the rows that both predict."""

    name: str
    other: str
    num_rows: int
    num_patients: int
    better_by: Estimate
    """How much better the first is."""

    @property
    def words(self) -> str:
        """Which is better."""
        interval = self.better_by.interval
        if self.better_by.value == 0 and interval in (None, (0, 0)):
            return "equal"
        if interval is None or interval[0] <= 0 <= interval[1]:
            return "not settled"
        return "better" if interval[0] > 0 else "worse"


def verdict_values(tables: Sequence[ScoredTable]) -> dict[str, Any]:
    """Values of verdicts.html."""
    title = tables[0].metric.title if tables else ""
    return {
        "verdicts": [verdict_of(item) for item in tables],
        "max_sentences": MAX_SENTENCES,
        "score_rows": [_score_row(item) for item in tables],
        "score_chart": interval_chart(
            f"Held-out {title} with intervals", f"{title}, lower is better", [_spot(item) for item in tables]
        )
        if tables
        else None,
        "comparisons": compared(tables),
    }


def verdict_of(item: ScoredTable) -> Verdict:
    """Whether a table is better than a constant predictor."""
    sentence, is_worse = verdict(item.better_than_constant, item.metric, "a constant predictor")
    of = "" if item.held_out else ", not known to be held out"
    return Verdict(f"{item.name}: {sentence}, on {patients_text(item)}{of}.", is_worse)


def patients_text(item: ScoredTable) -> str:
    """Numbers of rows and patients, in words."""
    plural = "" if item.num_patients == 1 else "s"
    return f"{len(item.rows)} rows of {item.num_patients} patient{plural}"


def compared(tables: Sequence[ScoredTable]) -> list[Comparison]:
    """Each table beside the best of those that predict the same rows, and beside the best of those with most rows."""
    if not tables:
        return []
    most = max(len(item.rows) for item in tables)
    widest = [item for item in tables if len(item.rows) == most]
    found: dict[frozenset[str], Comparison] = {}
    for group in (*by_rows(tables), [*widest, *tables]):
        reference = min(widest if len(group) > len(tables) else group, key=lambda item: item.value)
        for item in group:
            pair = frozenset((item.name, reference.name))
            if item is not reference and pair not in found:
                comparison = _comparison(item, reference)
                if comparison is not None:
                    found[pair] = comparison
    return list(found.values())


def _comparison(item: ScoredTable, other: ScoredTable) -> Comparison | None:
    rows, own, others = np.intersect1d(item.rows, other.rows, assume_unique=True, return_indices=True)
    truth = item.truth[own]
    if not len(rows) or not item.metric.row_weights(truth).any():
        return None
    patients = item.patients[own]
    better_by = advantage(item.metric, truth, item.prediction[own], other.prediction[others], patients)
    return Comparison(
        name=item.name, other=other.name, num_rows=len(rows), num_patients=len(np.unique(patients)),
        better_by=better_by,
    )  # fmt: skip


def levels_of(item: ScoredTable) -> list[Level]:
    """The constant predictor's value and, if known, the oracle's."""
    part, name = item.scores["strata"]["all"], item.metric.name
    found = [Level("constant", part[f"constant_{name}"])]
    return found if item.oracle is None else [*found, Level("oracle", part[f"oracle_{name}"])]


def _spot(item: ScoredTable) -> Spot:
    return Spot(item.name, item.value, item.estimate.interval, levels_of(item))


def _score_row(item: ScoredTable) -> list[str]:
    levels = {level.name: level.value for level in levels_of(item)}
    return [
        item.name,
        str(len(item.rows)),
        str(item.num_patients),
        cell(item.estimate),
        f"{levels['constant']:.4f}",
        f"{levels['oracle']:.4f}" if "oracle" in levels else NONE,
        cell(item.better_than_constant, sign=True),
        "yes" if item.held_out else "not known",
    ]


def cell(item: Estimate, *, sign: bool = False, digits: int = 4) -> str:
    """A figure with its interval."""
    form = f"{'+' if sign else ''}.{digits}f"
    if not np.isfinite(item.value):
        return NONE
    if item.interval is None:
        return f"{item.value:{form}}"
    return f"{item.value:{form}} ({item.interval[0]:{form}} to {item.interval[1]:{form}})"
