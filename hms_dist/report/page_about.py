"""Sections on the data and the software: data set, patients, classes, dates, versions, model cards."""

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from hms_dist.core.environment import versions
from hms_dist.datasets import Dataset
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import Labels
from hms_dist.report.page_training import NONE
from hms_dist.results.metric_kinds import metric_of
from hms_dist.train.folder.model_card import CARD_TEXT_NAME, read_card_text
from hms_dist.train.folder.run_folder import BEST, FINAL
from hms_dist.train.folder.whole_folder import present


def about_values(runs: Sequence[RunFacts], labels: Labels | None, dataset: Dataset, out: Path) -> dict[str, Any]:
    """Values of about.html."""
    return {
        "facts": _facts(labels, dataset),
        "rows_of_class": _class_rows(labels, dataset) if labels is not None and labels.index.labelled else [],
        "software": _software(runs, labels),
        "dates": [[run.name, _date(run.time_s), run.state, run.machine or NONE] for run in runs],
        "cards": [card for run in runs if (card := _card(run, out)) is not None],
    }


def _facts(labels: Labels | None, dataset: Dataset) -> list[list[str]]:
    kind = "shares of votes" if dataset.target == "shares" else "yes or no, each class by itself"
    facts = [["data set", dataset.name], ["targets", kind], ["classes", ", ".join(dataset.classes)]]
    if labels is None:
        return facts
    index = labels.index
    return [
        *facts,
        ["label rows", str(len(index))],
        *([] if dataset.signal == "audio" else [["patients", str(index.frame["patient_id"].nunique())]]),
        ["recordings" if dataset.signal == "audio" else "EEGs", str(index.frame["eeg_id"].nunique())],
        [
            "votes per row" if dataset.target == "shares" else "known classes per row",
            _spread(index.num_voters) if index.labelled else NONE,
        ],
        ["shards (SHA-256)", labels.fingerprint or NONE],
        ["rendered with", _versions(labels.versions)],
    ]


def _spread(counts: Any) -> str:
    return f"{int(np.min(counts))} to {int(np.max(counts))}, median {np.median(counts):g}"


def _class_rows(labels: Labels, dataset: Dataset) -> list[list[str]]:
    """Rows and patients of each class, and its mean target."""
    index = labels.index
    of_class, patients = metric_of(dataset).labels(index.targets) == 1, index.ids("patient_id")
    known = np.isfinite(index.targets)
    means = np.where(known, index.targets, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return [
        [name, str(of_class[:, at].sum()), str(len(np.unique(patients[of_class[:, at]]))), f"{means[at]:.1%}"]
        for at, name in enumerate(dataset.classes)
    ]


def _software(runs: Sequence[RunFacts], labels: Labels | None) -> list[list[str]]:
    """A line for each set of versions and what was made with it."""
    made = [*((run.name, run.versions) for run in runs), ("this page", versions())]
    lines: dict[str, list[str]] = {}
    for name, found in made:
        lines.setdefault(_versions(found), []).append(name)
    return [[", ".join(names), line] for line, names in lines.items()]


def _versions(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in found.items()) or "not recorded"


def _date(time_s: float | None) -> str:
    try:
        return NONE if time_s is None else f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, OSError, ValueError):
        return NONE


def _card(run: RunFacts, out: Path) -> dict[str, str] | None:
    """Name, link and text of the card of a run's product; None if it has none."""
    folder = next((run.folder / name for name in (BEST, FINAL) if present(run.folder / name) is not None), None)
    text = None if folder is None else read_card_text(folder)
    if folder is None or text is None:
        return None
    path = os.path.relpath(folder / CARD_TEXT_NAME, out.parent)
    return {"name": run.name, "path": path, "link": quote(path), "text": text}
