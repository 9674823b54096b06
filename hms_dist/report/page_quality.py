"""Quality of predictions: by class, by votes, calibration, and gains of ensembles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.labels.table import CLASSES
from hms_dist.report.page_charts import legend, reliability_chart, stacked_bars
from hms_dist.report.page_html import Html, figure, folded, missing, section, shaded, side_by_side, table
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import ScoredTable, ensemble_gains, reliability
from hms_dist.report.page_training import NONE

NO_TABLES = "it needs predictions beside votes; give --shards, and runs that have validated or --predictions."
MAX_OPEN = 3
"""With more tables than this, each confusion table is collapsed."""


@dataclass(frozen=True)
class Quality:
    """A run's best evaluation, or a table's scores."""

    name: str
    class_kl: NDArray[np.float64]
    """Contribution of each class to the KL [6]."""
    confusion: NDArray[np.int64]
    """Rows by consensus and most probable class [6, 6]."""


def qualities(runs: Sequence[RunFacts], tables: Sequence[ScoredTable]) -> list[Quality]:
    """Qualities of runs that have validated, from their logs, then of given tables."""
    logged = [
        Quality(
            run.name, np.array([run.best[f"val_kl_{name}"] for name in CLASSES]), np.array(run.best["val_confusion"])
        )
        for run in runs
        if run.best is not None
    ]
    return [*logged, *(Quality(item.name, item.class_kl, item.confusion) for item in tables)]


def class_section(found: Sequence[Quality]) -> Html:
    """Section: contributions of the classes to the KL."""
    explained = (
        "Which classes cost most: the parts of the six classes add up to the KL. A part below zero is a class that "
        "gets more probability than votes. Of a run it is the best epoch's, on its validation fold."
    )
    if not found:
        return section("KL by class", explained, missing("no run has validated, and no table could be scored."))
    names, parts = [item.name for item in found], np.array([item.class_kl for item in found])
    rows = [
        [name, *(f"{part:.4f}" for part in line), f"{line.sum():.4f}"] for name, line in zip(names, parts, strict=True)
    ]
    chart = stacked_bars(f"KL by class of {', '.join(names)}", "KL, lower is better", names, parts, CLASSES)
    bars = [legend(CLASSES), side_by_side([figure("KL and its parts by class.", chart)])]
    return section("KL by class", explained, *bars, table("Part of each class in the KL", ["", *CLASSES, "KL"], rows))


def confusion_section(found: Sequence[Quality]) -> Html:
    """Section: confusion tables."""
    explained = (
        "Rows counted by the class with most votes (down) and the most probable class (across); the larger a share of "
        "its line, the stronger its colour, so a good model shows a strong diagonal."
    )
    if not found:
        return section("Confusion", explained, missing("no run has validated, and no table could be scored."))
    parts = [folded(item.name, _confusion(item), is_open=len(found) <= MAX_OPEN) for item in found]
    return section("Confusion", explained, side_by_side(parts))


def _confusion(item: Quality) -> Html:
    totals = np.maximum(item.confusion.sum(axis=1), 1)
    rows = [
        [name, *(shaded(str(count), count / total) for count in line)]
        for name, line, total in zip(CLASSES, item.confusion.tolist(), totals, strict=True)
    ]
    return table(f"Confusion of {item.name}", ["votes", *CLASSES], rows)


def calibration_section(tables: Sequence[ScoredTable]) -> Html:
    """Section: reliability diagrams."""
    explained = (
        "Whether probabilities can be trusted: all six probabilities of all rows, sorted into ten bins; dots on the "
        "dashed line are right on average, below it too confident. Larger dots stand for more values. The error is the "
        "mean distance from the line."
    )
    if not tables:
        return section("Calibration", explained, missing(NO_TABLES))
    charts = []
    for number, item in enumerate(tables):
        found = reliability(item.truth, item.prediction)
        caption = f"{item.name}: calibration error {found.error:.4f}"
        if not item.is_useful:  # a constant is right on average
            caption = f"{item.name}: no better than a constant predictor, so its calibration is not meaningful"
        points = found.predicted, found.observed, found.counts
        charts.append(figure(caption, reliability_chart(f"Reliability of {caption}", *points, number)))
    return section("Calibration", explained, side_by_side(charts))


def strata_section(tables: Sequence[ScoredTable]) -> Html:
    """Section: KL by number of votes, with the constant predictor's and the oracle's."""
    explained = (
        "Rows with many votes have cleaner labels. The constant predictor gives every row the mean of the votes; the "
        "oracle, known for simulated data alone, gives the true distribution that the votes were drawn from, and no "
        "model can be expected to beat it. Gap closed is the share of the way from the one to the other."
    )
    if not tables:
        return section("Rows by votes", explained, missing(NO_TABLES))
    rows = [[item.name, *line] for item in tables for line in _strata(item)]
    known = tables[0].oracle is not None
    oracle = ["oracle KL", "gap closed"] if known else []
    head = ["table", "rows", "number", "KL", "constant KL", *oracle, "held out"]
    lacking = [] if known else [missing("oracle and gap closed; they need --truth.")]
    return section("Rows by votes", explained, table("KL by number of votes", head, rows), *lacking)


def _strata(item: ScoredTable) -> list[list[str]]:
    lines = []
    for name, part in item.scores["strata"].items():
        line = [name.replace("_", " "), str(part["num_rows"]), f"{part['kl']:.4f}", f"{part['constant_kl']:.4f}"]
        if item.oracle is not None:
            gap = part["gap_closed"]
            line += [f"{part['oracle_kl']:.4f}", NONE if gap is None else f"{gap:.1%}"]
        lines.append([*line, "yes" if item.held_out else "not known"])
    return lines


def ensemble_section(tables: Sequence[ScoredTable]) -> Html:
    """Section: gains of combining tables of the same rows."""
    explained = (
        "Gain of combining several tables that predict the same rows, by the plain mean of their "
        "probabilities or as an ensemble or a stack has made one of them: the best single table's KL less the KL of "
        "what they make together."
    )
    gains = ensemble_gains(tables)
    if not gains:
        return section("Ensemble", explained, missing("no two tables predict the same rows."))
    rows = [
        [
            ", ".join(gain.names),
            gain.by,
            str(gain.num_rows),
            f"{np.mean(gain.single_kl):.4f}",
            f"{min(gain.single_kl):.4f}",
            f"{gain.together_kl:.4f}",
            f"{min(gain.single_kl) - gain.together_kl:+.4f}",
        ]
        for gain in gains
    ]
    head = ["tables", "together by", "rows", "mean of single KLs", "best single KL", "KL together", "gain"]
    return section("Ensemble", explained, table("Gain of ensembles", head, rows))
