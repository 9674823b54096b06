"""Result tables as Markdown and CSV, and the scores shared by both comparisons."""

from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd

from hms_dist.core.files import atomic
from hms_dist.results.metric_kinds import metric_of
from hms_dist.results.metrics import seed001_cv
from hms_dist.shards.index import Index
from hms_dist.train.folder.record import read_metrics


def write_table(stem: Path, table: pd.DataFrame) -> None:
    """Write `stem`.md, with four decimals, and `stem`.csv, in full precision; each atomically."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    with atomic(stem.with_name(f"{stem.name}.csv"), "w") as file:
        table.to_csv(file, index=False)
    with atomic(stem.with_name(f"{stem.name}.md"), "w") as file:
        file.write(as_markdown(table))


def as_markdown(table: pd.DataFrame) -> str:
    """Format a Markdown table: floats with four decimals, right-aligned; missing values are empty."""
    numeric = [pd.api.types.is_float_dtype(kind) for kind in table.dtypes]
    rows = [[str(name) for name in table], ["---:" if number else "---" for number in numeric]]
    rows += [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def scores(predictions: pd.DataFrame, index: Index) -> dict[str, float]:
    """Scores of predictions (key and classes) against the targets of their rows, the one that decides first.

    Kaggle's KL and the wavelet ablation's score; log loss, AUROC and AUPRC for independent yes/no classes.
    """
    place = pd.Series(np.arange(len(index)), index=index.frame["key"])
    truth = index.targets[place.loc[predictions["key"]].to_numpy()]
    found, metric = predictions[list(index.dataset.classes)].to_numpy(np.float64), metric_of(index.dataset)
    if index.dataset.target == "shares":
        return {"kl": metric.value(truth, found), "seed001_cv": seed001_cv(truth, found)}
    monitors = metric.monitors(truth, found)
    return {name: monitors.get(f"val_{name}", float("nan")) for name in ("log_loss", "auroc", "auprc")}


def images_per_s(run: Path) -> float:
    """Median training speed of a run over its log lines, images per second over all ranks; NaN without any."""
    return median([line["images_per_s"] for line in read_metrics(run) if "images_per_s" in line] or [float("nan")])


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.4f}"
    return str(value)
