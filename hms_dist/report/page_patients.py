"""Scores by number of votes and by patient, with the constant predictor and the oracle beside them."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hms_dist.report.page_charts import Curve, Level, line_chart
from hms_dist.report.page_scores import Floats, ScoredTable, by_rows
from hms_dist.report.page_training import NONE
from hms_dist.report.page_verdicts import levels_of

MOST_PATIENTS = 10
"""Patients in the table of the worst ones."""


def patient_values(tables: Sequence[ScoredTable]) -> dict[str, Any]:
    """Values of patients.html."""
    shares = bool(tables) and tables[0].metric.name == "kl"
    return {
        "vote_charts": list(_charts(tables, _votes_chart)) if shares else [],
        "patient_charts": list(_charts(tables, _patients_chart)),
        "worst": [(item.name, worst_patients(item)) for item in tables],
        "most_patients": MOST_PATIENTS,
    }


def _charts(
    tables: Sequence[ScoredTable], draw: Callable[[Sequence[ScoredTable], Sequence[int]], tuple[str, Markup]]
) -> Iterator[tuple[str, Markup]]:
    """A caption and a chart for each group of tables with the same rows; each table keeps its colour."""
    numbers = {id(item): number for number, item in enumerate(tables)}
    for group in by_rows(tables):
        yield draw(group, [numbers[id(item)] for item in group])


def _votes_chart(group: Sequence[ScoredTable], numbers: Sequence[int]) -> tuple[str, Markup]:
    first, names = group[0], ", ".join(item.name for item in group)
    curves = [
        Curve(item.name, number, *_means(item.row_values, item.num_voters))
        for item, number in zip(group, numbers, strict=True)
    ]
    others = [("constant", first.metric.rows(first.truth, first.constant))]
    if first.oracle is not None:
        others.append(("oracle", first.metric.rows(first.truth, first.oracle)))
    curves += [Curve(name, -at, *_means(values, first.num_voters)) for at, (name, values) in enumerate(others, 1)]
    caption = f"{names}. Gray: constant predictor (dashed)" + (", oracle (dotted)." if len(others) > 1 else ".")
    title = f"{first.metric.title} by number of votes of {names}"
    return caption, line_chart(title, "votes", first.metric.title, curves)


def _means(values: Floats, keys: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Each key and the mean of its values."""
    found, places = np.unique(keys, return_inverse=True)
    return found.astype(np.float64), np.bincount(places, values) / np.bincount(places)


def _patients_chart(group: Sequence[ScoredTable], numbers: Sequence[int]) -> tuple[str, Markup]:
    first, names = group[0], ", ".join(item.name for item in group)
    curves = []
    for item, number in zip(group, numbers, strict=True):
        values = np.sort(_of_patients(item, item.row_values)[1])
        curves.append(Curve(item.name, number, np.arange(1.0, len(values) + 1), values))
    levels: list[Level] = levels_of(first)
    title = f"{first.metric.title} of each patient of {names}"
    caption = f"{names}: patients from the best to the worst. Dashed: {' and '.join(item.name for item in levels)}."
    return caption, line_chart(title, "patients", first.metric.title, curves, levels)


def _of_patients(item: ScoredTable, values: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Patients with something known, and the mean of `values` [rows] of each."""
    weights = item.metric.row_weights(item.truth)
    patients, places = np.unique(item.patients, return_inverse=True)
    total = np.bincount(places, weights)
    sums = np.bincount(places, np.where(weights > 0, values, 0) * weights)
    return patients[total > 0], sums[total > 0] / total[total > 0]


def worst_patients(item: ScoredTable) -> list[list[str]]:
    """Lines of the patients with the highest values, the highest first: patient, rows, classes, value, constant,
    oracle."""
    patients, values = _of_patients(item, item.row_values)
    constant = _of_patients(item, item.metric.rows(item.truth, item.constant))[1]
    oracle = None if item.oracle is None else _of_patients(item, item.metric.rows(item.truth, item.oracle))[1]
    labels = item.metric.labels(item.truth) == 1
    lines = []
    for place in np.argsort(-values, kind="stable")[:MOST_PATIENTS].tolist():
        mine = item.patients == patients[place]
        counts = labels[mine].sum(axis=0)
        common = [f"{item.classes[number]} {counts[number]}" for number in np.argsort(-counts, kind="stable")[:3]
                  if counts[number]]  # fmt: skip
        lines.append(
            [
                str(patients[place]), str(mine.sum()), ", ".join(common) or NONE, f"{values[place]:.4f}",
                f"{constant[place]:.4f}", NONE if oracle is None else f"{oracle[place]:.4f}",
            ]
        )  # fmt: skip
    return lines
