"""Training of the runs: rows of the table of runs, and their curves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hms_dist.report.page_charts import Curve, Level, legend, line_chart
from hms_dist.report.page_runs import RunFacts
from hms_dist.results.metric_kinds import MONITORS, Metric

NONE = "\N{EM DASH}"
"""Shown for a missing value."""
CURVES = (
    (
        "Training loss",
        "loss",
        "Mean loss of each logged step's batch, by the run's own loss function.",
        "loss",
        "steps",
    ),
    ("Learning rate", "learning rate", "The highest of all parameter groups, at each logged step.", "lr", "steps"),
    (
        "Validation KL",
        "KL",
        "Kaggle's metric on the validation fold after each epoch; lower is better.",
        "val_kl",
        "epochs",
    ),
    (
        "Validation log loss",
        "log loss",
        "Mean over the known classes of the validation fold after each epoch; lower is better.",
        "val_log_loss",
        "epochs",
    ),
    (
        "Validation AUROC",
        "AUROC",
        "Mean over the classes with a known yes and no, after each epoch; 0.5 is chance, 1 ideal.",
        "val_auroc",
        "epochs",
    ),
    (
        "Throughput",
        "images/s",
        "Pictures trained per second, over all ranks, between two log lines.",
        "images_per_s",
        "steps",
    ),
    (
        "Data wait",
        "share of time",
        "Share of that time in which the trainer waited for data; 0 is ideal.",
        "data_wait_share",
        "steps",
    ),
)
"""Heading, axis label, explanation, name in metrics.jsonl, and which lines have it."""


def training_values(runs: Sequence[RunFacts], metric: Metric, levels: Sequence[Level] = ()) -> dict[str, Any]:
    """Values of training.html: the table of runs, and curves from metrics.jsonl; each run has a colour.

    `levels`: lines in the chart of the metric on the validation fold.
    """
    drawn, absent = [], []
    others = [name for name in (*MONITORS, "val_auroc") if not any(name in run.metric.monitor_names for run in runs)]
    for heading, label, explained, name, kind in CURVES:
        if name in others:
            continue
        curves = [curve for number, run in enumerate(runs) if (curve := _curve(run, number, name, kind)) is not None]
        if curves:
            names = ", ".join(curve.name for curve in curves)
            lines = levels if name == metric.monitor else ()
            drawn.append((f"{heading}. {explained}", line_chart(f"{heading} of {names}", "step", label, curves, lines)))
        else:
            absent.append(heading.lower())
    return {
        "runs": runs,
        "metric": metric,
        "run_rows": [_row(run) for run in runs],
        "run_legend": legend([run.name for run in runs]),
        "curves": drawn,
        "curves_missing": absent,
    }


def _row(run: RunFacts) -> list[str]:
    config, best = run.config, run.best
    begun = max((line["epoch"] + 1 for line in run.steps), default=0)
    return [
        run.name,
        run.recipe or NONE,
        str(config.seed),
        str(config.fold),
        f"{best[run.metric.monitor]:.4f}" if best else NONE,
        str(best["epoch"] + 1) if best else NONE,
        f"{begun} of {config.epochs}",
        config.model.name,
        _over(run, "images_per_s", np.median, "{:.1f}"),
        _over(run, "data_wait_share", np.mean, "{:.1%}"),
        _over(run, "gpu_memory_mb", np.max, "{:.0f} MB"),
        run.state,
    ]


def _over(run: RunFacts, name: str, summary: Callable[[list[float]], Any], form: str) -> str:
    values = [line[name] for line in run.steps if name in line]
    return form.format(summary(values)) if values else NONE


def _curve(run: RunFacts, number: int, name: str, kind: str) -> Curve | None:
    lines = [line for line in (run.steps if kind == "steps" else run.evaluations) if name in line]
    if not lines:
        return None
    x, y = (np.array([line[key] for line in lines], np.float64) for key in ("step", name))
    return Curve(run.name, number, x, y)
