"""Quality of predictions: by class, by votes, calibration, and gains of ensembles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from hms_dist.datasets import Dataset
from hms_dist.report.page_charts import legend, reliability_chart, stacked_bars
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import Gain, ScoredTable, by_rows, ensemble_gains
from hms_dist.report.page_training import NONE
from hms_dist.report.page_verdicts import cell
from hms_dist.results.held_out import reliability

MAX_OPEN = 3
"""With more tables than this, each confusion table is collapsed."""
MAX_CLASSES = 12
"""Most classes with a reliability chart of their own."""


@dataclass(frozen=True)
class Quality:
    """A run's best evaluation, or a table's scores."""

    name: str
    parts: NDArray[np.float64]
    """Contribution of each class to the KL, or its own log loss [classes]; NaN if unknown."""
    confusion: NDArray[np.int64]
    """See `ScoredTable.confusion`."""


def qualities(runs: Sequence[RunFacts], tables: Sequence[ScoredTable]) -> list[Quality]:
    """Qualities of runs that have validated, from their logs, then of given tables."""
    logged = [
        Quality(
            run.name,
            np.array([run.best.get(f"{run.metric.monitor}_{name}", np.nan) for name in run.dataset.classes]),
            np.array(run.best["val_confusion"]),
        )
        for run in runs
        if run.best is not None
    ]
    return [*logged, *(Quality(item.name, item.parts, item.confusion) for item in tables)]


def compared_qualities(tables: Sequence[ScoredTable]) -> list[Quality]:
    """The constant predictor and, if known, the oracle, for each group of tables with the same rows."""
    found, groups = [], by_rows(tables)
    for group in groups:
        first, of = group[0], "" if len(groups) == 1 else f", rows of {group[0].name}"
        for name, table in (("constant", first.constant), ("oracle", first.oracle)):
            if table is not None:
                counts = np.array(first.metric.evaluation(first.truth, table)["val_confusion"])
                found.append(Quality(f"{name}{of}", first.metric.parts(first.truth, table), counts))
    return found


def quality_values(found: Sequence[Quality], tables: Sequence[ScoredTable], dataset: Dataset) -> dict[str, Any]:
    """Values of quality.html, of runs and tables and of tables alone."""
    return {
        "qualities": found,
        "max_open": MAX_OPEN,
        **(_class_values([*found, *compared_qualities(tables)], dataset) if found else {}),
        "class_tables": [(item.name, _class_figures(item)) for item in tables],
        "class_calibration": list(_class_calibration(tables)),
        "table_legend": legend([item.name for item in tables]),
        "tables": tables,
        "rank_rows": rank_rows(tables),
        "has_oracle": bool(tables) and tables[0].oracle is not None,
        "strata_rows": [[item.name, *line] for item in tables for line in _strata(item)],
        "calibration": list(_calibration(tables)),
        "gain_rows": [_gain_row(gain) for gain in ensemble_gains(tables)],
    }


def _class_values(found: Sequence[Quality], dataset: Dataset) -> dict[str, Any]:
    """Values of the section on the classes: their contributions to the KL, or the log loss of each."""
    names, parts = [item.name for item in found], np.array([item.parts for item in found])
    if dataset.target == "yes_no":
        return {"class_rows": [[name, *map(_cell, line)] for name, line in zip(names, parts, strict=True)]}
    rows = [
        [name, *(f"{part:.4f}" for part in line), f"{line.sum():.4f}"] for name, line in zip(names, parts, strict=True)
    ]
    chart = stacked_bars(f"KL by class of {', '.join(names)}", "KL, lower is better", names, parts, dataset.classes)
    return {"class_legend": legend(dataset.classes), "class_chart": chart, "class_rows": rows}


def _calibration(tables: Sequence[ScoredTable]) -> Iterator[tuple[str, Markup]]:
    """Caption and reliability chart of each table."""
    for number, item in enumerate(tables):
        found = reliability(item.truth, item.prediction)
        caption = f"{item.name}: calibration error {found.error:.4f}"
        if not item.is_useful:  # a constant is right on average
            caption = f"{item.name}: no better than a constant predictor, so its calibration is not meaningful"
        oracle = None if item.oracle is None else reliability(item.truth, item.oracle)
        yield caption, reliability_chart(f"Reliability of {caption}", [(item.name, number, found)], oracle=oracle)


def _class_calibration(tables: Sequence[ScoredTable]) -> Iterator[tuple[str, Markup]]:
    """Caption and reliability chart of each class, of all tables, for the classes with most rows."""
    if not tables:
        return
    first = max(tables, key=lambda item: len(item.rows))
    rows = [item.num_rows for item in first.class_scores]
    for place in sorted(np.argsort(rows, kind="stable")[::-1][:MAX_CLASSES].tolist()):
        series = [
            (item.name, number, reliability(item.truth[:, place], item.prediction[:, place]))
            for number, item in enumerate(tables)
            if np.isfinite(item.truth[:, place]).any()
        ]
        if series and np.isfinite(first.truth[:, place]).any():
            oracle = None if first.oracle is None else reliability(first.truth[:, place], first.oracle[:, place])
            name = first.classes[place]
            chart = reliability_chart(
                f"Reliability of {name}", series, constant=float(first.constant[0, place]), oracle=oracle
            )
            yield name, chart


def _class_figures(item: ScoredTable) -> list[list[str]]:
    """Lines of the table of a table's figures of classes."""
    return [
        [
            one.name,
            str(one.num_rows),
            *(cell(figure, digits=3) for figure in (one.part, one.auroc, one.auprc, one.sensitivity, one.specificity)),
            _cell(one.calibration_error),
        ]
        for one in item.class_scores
    ]


def _strata(item: ScoredTable) -> list[list[str]]:
    lines = []
    for name, part in item.scores["strata"].items():
        values = (part[item.metric.name], part[f"constant_{item.metric.name}"])
        line = [name.replace("_", " "), str(part["num_rows"]), *(f"{value:.4f}" for value in values)]
        if item.oracle is not None:
            gap = part["gap_closed"]
            line += [f"{part[f'oracle_{item.metric.name}']:.4f}", NONE if gap is None else f"{gap:.1%}"]
        lines.append([*line, "yes" if item.held_out else "not known"])
    return lines


def _gain_row(gain: Gain) -> list[str]:
    return [
        ", ".join(gain.names),
        gain.by,
        str(gain.num_rows),
        f"{np.mean(gain.single):.4f}",
        f"{min(gain.single):.4f}",
        f"{gain.together:.4f}",
        f"{min(gain.single) - gain.together:+.4f}",
    ]


def rank_rows(tables: Sequence[ScoredTable]) -> list[list[str]]:
    """Lines of the table of metrics of ranks, for independent yes/no classes."""
    names = ("auroc", "auprc", "balanced_accuracy", "lwlrap")
    return [
        [item.name, *(NONE if item.scores[name] is None else f"{item.scores[name]:.4f}" for name in names)]
        for item in tables
        if "auroc" in item.scores
    ]


def _cell(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else NONE
