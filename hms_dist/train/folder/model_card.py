"""The model card of a run's weights: training data, held-out figures with intervals, intended use.

It is in the folder of the weights as JSON and as Markdown, with their digests in hashes.json. `hms-dist export` adds
the arguments of timm to the same JSON.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hms_dist.core import limits
from hms_dist.core.environment import versions
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_bytes, required_object, sha256_of
from hms_dist.results.lineage import ModelRecord
from hms_dist.results.metric_kinds import metric_of
from hms_dist.shards.index import Index, Rows
from hms_dist.train.folder.whole_folder import present, recorded_hash
from hms_dist.train.settings import TrainConfig

CARD_NAME, CARD_TEXT_NAME = "model_card.json", "model_card.md"
FORMAT_VERSION = 1
RESTORE = "restore it from a copy, or train again"
INTENDED_USE = (
    "Research on the classification of EEG patterns, on recordings like those of the training data. Predictions are "
    "estimates of what a group of experts would vote, not of a diagnosis."
)
NOT_A_DEVICE = (
    "Not a medical device: it was not validated for clinical use, and must not guide the diagnosis, treatment or "
    "monitoring of patients."
)
LIMITS = (
    "Held-out figures are of patients of the same data set: other hospitals, amplifiers and populations may differ.",
    "The epoch of best/ was chosen by the same held-out rows, so its figures are slightly optimistic.",
)
_FIGURES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
}


def run_card(
    config: TrainConfig, index: Index, rows: Rows, record: ModelRecord, *, weights: str, epoch: int,
    held_out: Mapping[str, Any] | None,
) -> dict[str, Any]:  # fmt: skip
    """Build the card of the weights that a run trained on `rows` [n]; `weights` is the name of their folder, `epoch`
    the number of epochs trained.

    `held_out`: the value of `held_out_figures`, or part of it; None: the run held out no patients. Depends on nothing
    that a resume changes.
    """
    dataset = index.dataset
    labels = metric_of(dataset).labels(index.targets[rows])
    left_out = [*config.left_out_folds, *([] if config.fold == "none" else [config.fold])]
    return {
        "format_version": FORMAT_VERSION,
        "architecture": config.model.name,
        "in_chans": 1,
        "input_size": [config.canvas.height, config.canvas.width],
        "classes": list(dataset.classes),
        "target": dataset.target,
        "run": {
            "name": config.out.resolve().name, "weights": weights, "seed": config.seed, "fold": config.fold,
            "num_folds": config.num_folds,
        },
        "training": {
            "data_set": dataset.name,
            "shards": record.shards,
            "num_rows": len(rows),
            "num_patients": len(record.patients),
            "rows_of_class": dict(zip(dataset.classes, (labels == 1).sum(axis=0).tolist(), strict=True)),
            "folds": [number for number in range(config.num_folds) if number not in left_out],
            "epochs": epoch,
            "loss": config.loss.name,
            "learnt_from": [model.name for model in record.learnt_from],
            "unknown_teacher": record.unknown_teacher,
        },
        "held_out": held_out,
        "intended_use": INTENDED_USE,
        "not_a_medical_device": NOT_A_DEVICE,
        "limits": list(LIMITS),
        "versions": versions(),
    }  # fmt: skip


def read_card(folder: Path) -> dict[str, Any] | None:
    """Read the card in a folder of weights; None if there is none, as in runs of earlier versions.

    Raises UserError if it is not the one that the run wrote.
    """
    path = _checked(folder, CARD_NAME)
    return None if path is None else required_object(path, RESTORE)


def read_card_text(folder: Path) -> str | None:
    """Read the card in Markdown; as `read_card`."""
    path = _checked(folder, CARD_TEXT_NAME)
    return None if path is None else read_bytes(path, limits.JSON_BYTES).decode(errors="replace")


def _checked(folder: Path, name: str) -> Path | None:
    """Path of a file of a folder of weights, if it is there and as the run wrote it."""
    path = (present(folder) or folder) / name
    if not path.is_file():
        return None
    if recorded_hash(path.parent, name) != sha256_of(path):
        raise UserError(f"{path}: its SHA-256 is not the one in hashes.json; {RESTORE}")
    return path


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    run, training = card["run"], card["training"]
    fold = "none: all patients" if run["fold"] == "none" else f"{run['fold']} of {run['num_folds']}"
    teachers = [*training["learnt_from"], *filter(None, [training["unknown_teacher"]])]
    facts = {
        "Architecture": card["architecture"],
        "Input": f"{card['in_chans']} channel, {card['input_size'][0]} x {card['input_size'][1]} pixels",
        "Output": f"{'shares of votes' if card['target'] == 'shares' else 'yes or no'}: {', '.join(card['classes'])}",
        "Run": f"{run['name']}, seed {run['seed']}",
        "Weights": f"{run['weights']}/, after {training['epochs']} epochs",
        "Data set": training["data_set"],
        "Shards (SHA-256)": training["shards"],
        "Trained on": f"{training['num_rows']} rows of {training['num_patients']} patients (ids: meta.json)",
        "Training rows by class": ", ".join(f"{name} {number}" for name, number in training["rows_of_class"].items()),
        "Training folds": ", ".join(map(str, training["folds"])) or "none",
        "Validation fold": fold,
        "Loss": training["loss"],
        "Learned from models": ", ".join(teachers) or "none",
    }
    versions_line = ", ".join(f"{name} {number}" for name, number in card["versions"].items())
    return "\n".join(
        [
            f"# Model card: {run['name']} ({run['weights']})",
            "",
            f"**{card['not_a_medical_device']}**",
            "",
            f"Intended use: {card['intended_use']}",
            "",
            "## Model and training data",
            "",
            *_table(["", ""], [[name, str(value)] for name, value in facts.items()]),
            "",
            "## Held-out figures",
            "",
            *_held_out_lines(card["held_out"]),
            "",
            "## Limits",
            "",
            *(f"- {line}" for line in card["limits"]),
            "",
            f"Software: {versions_line}.",
            "",
        ]
    )


def _held_out_lines(figures: Mapping[str, Any] | None) -> list[str]:
    if figures is None:
        return ["None: the run trained on all patients. Runs of the same recipe with a fold give them."]
    name = figures["metric"]
    title = name.replace("_", " ") if name != "kl" else "KL"
    if "classes" not in figures:
        return [f"{title} {figures[name]['value']:.4f} (lower is better). {figures['note']}"]
    gain = figures["better_than_constant_by"]
    lines = [
        f"{figures['num_rows']} rows of {figures['num_patients']} patients that were not trained on. In brackets: "
        f"{figures['level']:.0%} bootstrap intervals over patients.",
        "",
        f"- {title} (lower is better): {_figure(figures[name])}",
        f"- constant predictor: {figures[f'constant_{name}']:.4f}; better than it by {_figure(gain)}",
        "",
    ]
    part = "part of KL" if name == "kl" else title
    head = ["class", "rows", part, *_FIGURES.values(), "calibration error"]
    rows = [
        [of, str(item["num_rows"]), _figure(item["part"]), *(_figure(item[key]) for key in _FIGURES),
         _number(item["calibration_error"])]
        for of, item in figures["classes"].items()
    ]  # fmt: skip
    return [*lines, *_table(head, rows)]


def _figure(item: Mapping[str, Any]) -> str:
    if item["interval"] is None:
        return _number(item["value"])
    low, high = item["interval"]
    return f"{_number(item['value'])} ({low:.3f} to {high:.3f})"


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.4f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines]
