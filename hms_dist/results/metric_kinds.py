"""The metric of a data set: Kaggle's KL for shares of votes, the log loss over known cells for yes or no.

The monitor of a run, its best weights, searches and reports all go by the first of these values.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hms_dist.datasets import Dataset
from hms_dist.results import metrics, yes_no

Floats = NDArray[np.float64]


class Metric(Protocol):
    """Scores of predictions [rows, classes] against targets of the same shape. Lower values are better."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""

    @property
    def name(self) -> str:
        """Name in keys of tables and JSON: `kl`."""

    @property
    def title(self) -> str:
        """Name for people: `KL`."""

    @property
    def monitor(self) -> str:
        """Key in metrics.jsonl of the value that decides which epoch is best: `val_kl`."""

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """Keys of `monitors`, those that may be absent included."""

    def value(self, truth: Floats, found: Floats) -> float:
        """The value that decides, over rows [rows, classes]; the other methods have the same arguments."""

    def rows(self, truth: Floats, found: Floats, name: str = "predictions") -> Floats:
        """The value of each row [rows], NaN where nothing is known. Raises UserError, with `name`, for impossible
        predictions."""

    def row_weights(self, truth: Floats) -> Floats:
        """Weight of each row [rows] in `value`."""

    def cells(self, truth: Floats, found: Floats) -> Floats:
        """The contribution of each class to each row's value [rows, classes], NaN where nothing is known."""

    def parts(self, truth: Floats, found: Floats) -> Floats:
        """The share of each class in it, or its own value [classes]; NaN if unknown."""

    def monitors(self, truth: Floats, found: Floats) -> dict[str, float]:
        """Figures of an evaluation for metrics.jsonl. A figure that these rows do not define is absent. Arguments
        as `value`."""

    def evaluation(self, truth: Floats, found: Floats) -> dict[str, Any]:
        """Tables of an evaluation for metrics.jsonl. Arguments as `value`."""

    def constant(self, truth: Floats) -> Floats:
        """The best constant prediction, repeated: [rows, classes]."""

    def score(
        self, truth: Floats, found: Floats, num_voters: NDArray[np.integer] | Floats, oracle: Floats | None = None
    ) -> dict[str, Any]:
        """Scores as JSON: `strata` -> `all` has num_rows, <name>, constant_<name>, and with the oracle oracle_<name>
        and gap_closed. `num_voters` [rows], any integer dtype or float64; `oracle` [rows, classes]."""

    def strata(self, num_voters: NDArray[np.integer] | Floats) -> dict[str, NDArray[np.bool_]]:
        """Named row masks [rows] of the strata of `num_voters` [rows], any integer dtype or float64."""

    def labels(self, truth: Floats) -> Floats:
        """Whether each row is of each class [rows, classes]: 1, 0 or NaN (unknown)."""

    def decisions(self, found: Floats) -> NDArray[np.bool_]:
        """Whether predictions assign each row to each class [rows, classes]."""

    def warnings(self, truth: Floats, found: Floats, folds: NDArray[np.integer] | None = None) -> list[str]:
        """Reasons why the value is not meaningful. `folds` [rows], any integer dtype."""


@dataclass(frozen=True)
class KlMetric:
    """Kaggle's KL, for shares of votes."""

    classes: tuple[str, ...]
    name: str = "kl"
    title: str = "KL"
    monitor: str = "val_kl"

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """See `Metric`."""
        return ("val_kl", *(f"val_kl_{name}" for name in self.classes))

    def value(self, truth: Floats, found: Floats) -> float:
        """See `Metric`."""
        return metrics.kaggle_kl(truth, found)

    def rows(self, truth: Floats, found: Floats, name: str = "predictions") -> Floats:
        """See `Metric`."""
        return metrics.row_kl(truth, found, name)

    def row_weights(self, truth: Floats) -> Floats:
        """See `Metric`."""
        return np.ones(len(truth))

    def cells(self, truth: Floats, found: Floats) -> Floats:
        """See `Metric`."""
        return metrics.cell_kl(truth, found)

    def parts(self, truth: Floats, found: Floats) -> Floats:
        """See `Metric`: contributions, which sum to the KL."""
        return metrics.class_kl(truth, found)

    def monitors(self, truth: Floats, found: Floats) -> dict[str, float]:
        """See `Metric`."""
        values = [self.value(truth, found), *self.parts(truth, found).tolist()]
        return dict(zip(self.monitor_names, values, strict=True))

    def evaluation(self, truth: Floats, found: Floats) -> dict[str, Any]:
        """See `Metric`."""
        return {"val_confusion": metrics.consensus_confusion(truth, found).tolist()}

    def constant(self, truth: Floats) -> Floats:
        """See `Metric`."""
        return metrics.constant_prediction(truth)

    def score(
        self, truth: Floats, found: Floats, num_voters: NDArray[np.integer] | Floats, oracle: Floats | None = None
    ) -> dict[str, Any]:
        """See `Metric`."""
        return metrics.score(truth, found, num_voters, oracle, classes=self.classes)

    def strata(self, num_voters: NDArray[np.integer] | Floats) -> dict[str, NDArray[np.bool_]]:
        """See `Metric`."""
        return metrics.strata(num_voters)

    def labels(self, truth: Floats) -> Floats:
        """See `Metric`: the class with most votes; ties go to the first."""
        return self.decisions(truth).astype(np.float64)

    def decisions(self, found: Floats) -> NDArray[np.bool_]:
        """See `Metric`: the most probable class."""
        return np.eye(found.shape[1], dtype=bool)[found.argmax(axis=1)]

    def warnings(self, truth: Floats, found: Floats, folds: NDArray[np.integer] | None = None) -> list[str]:
        """See `Metric`."""
        return metrics.score_warnings(truth, found, folds, classes=self.classes)


@dataclass(frozen=True)
class LogLossMetric:
    """Log loss over known cells, for independent yes/no classes."""

    classes: tuple[str, ...]
    threshold: float = yes_no.THRESHOLD
    """Of the balanced accuracy."""
    name: str = "log_loss"
    title: str = "log loss"
    monitor: str = "val_log_loss"

    @property
    def monitor_names(self) -> tuple[str, ...]:
        """See `Metric`."""
        overall = ("log_loss", "auroc", "auprc", "balanced_accuracy", "lwlrap")
        return tuple(f"val_{name}" for name in (*overall, *(f"log_loss_{name}" for name in self.classes)))

    def value(self, truth: Floats, found: Floats) -> float:
        """See `Metric`."""
        return yes_no.log_loss(truth, found)

    def rows(self, truth: Floats, found: Floats, name: str = "predictions") -> Floats:
        """See `Metric`: the mean over the row's known cells."""
        losses = yes_no.cell_losses(truth, found, name)
        known = np.isfinite(losses)
        sums = np.where(known, losses, 0).sum(axis=1)
        return np.where(known.any(axis=1), sums / np.maximum(known.sum(axis=1), 1), np.nan)

    def row_weights(self, truth: Floats) -> Floats:
        """See `Metric`: the number of known cells."""
        return np.isfinite(truth).sum(axis=1).astype(np.float64)

    def cells(self, truth: Floats, found: Floats) -> Floats:
        """See `Metric`: the log loss of each cell."""
        return yes_no.cell_losses(truth, found)

    def parts(self, truth: Floats, found: Floats) -> Floats:
        """See `Metric`: the log loss of each class."""
        losses = yes_no.cell_losses(truth, found)
        known = np.isfinite(losses)
        sums = np.where(known, losses, 0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), np.nan)

    def monitors(self, truth: Floats, found: Floats) -> dict[str, float]:
        """See `Metric`."""
        overall = {"log_loss": self.value(truth, found), **self._ranks(truth, found)}
        parts = dict(zip((f"log_loss_{name}" for name in self.classes), self.parts(truth, found), strict=True))
        return {
            f"val_{name}": float(value)
            for name, value in {**overall, **parts}.items()
            if value is not None and np.isfinite(value)
        }

    def _ranks(self, truth: Floats, found: Floats) -> dict[str, float | None]:
        return {
            "auroc": yes_no.macro(yes_no.class_auroc(truth, found)),
            "auprc": yes_no.macro(yes_no.class_auprc(truth, found)),
            "balanced_accuracy": yes_no.macro(yes_no.class_balanced_accuracy(truth, found, self.threshold)),
            "lwlrap": yes_no.lwlrap(truth, found),
        }

    def evaluation(self, truth: Floats, found: Floats) -> dict[str, Any]:
        """See `Metric`."""
        return {"val_confusion": yes_no.confusion(truth, found, self.threshold).tolist()}

    def constant(self, truth: Floats) -> Floats:
        """See `Metric`."""
        return yes_no.constant_prediction(truth)

    def score(
        self, truth: Floats, found: Floats, num_voters: NDArray[np.integer] | Floats, oracle: Floats | None = None
    ) -> dict[str, Any]:
        """See `Metric`."""
        overall, constant = self.value(truth, found), self.value(truth, self.constant(truth))
        entry: dict[str, Any] = {"num_rows": len(truth), "log_loss": overall, "constant_log_loss": constant}
        if oracle is not None:
            entry["oracle_log_loss"] = self.value(truth, oracle)
            entry["gap_closed"] = metrics.gap_closed(overall, constant, entry["oracle_log_loss"])
        auroc, auprc = yes_no.class_auroc(truth, found), yes_no.class_auprc(truth, found)
        accuracy = yes_no.class_balanced_accuracy(truth, found, self.threshold)
        columns = {"log_loss": self.parts(truth, found), "auroc": auroc, "auprc": auprc, "balanced_accuracy": accuracy}
        known = np.isfinite(truth)
        of_class = {
            name: {
                "num_yes": int((truth[:, number] == 1).sum()),
                "num_no": int((truth[:, number] == 0).sum()),
                **{key: _number(values[number]) for key, values in columns.items()},
            }
            for number, name in enumerate(self.classes)
        }
        return {
            "log_loss": overall, "num_rows": len(truth), "num_known_cells": int(known.sum()),
            **self._ranks(truth, found), "threshold": self.threshold, "classes": of_class, "strata": {"all": entry},
        }  # fmt: skip

    def strata(self, num_voters: NDArray[np.integer] | Floats) -> dict[str, NDArray[np.bool_]]:
        """See `Metric`: votes are not counted."""
        return {"all": np.ones(len(num_voters), bool)}

    def labels(self, truth: Floats) -> Floats:
        """See `Metric`: the targets."""
        return truth

    def decisions(self, found: Floats) -> NDArray[np.bool_]:
        """See `Metric`: by the threshold."""
        return np.asarray(found >= self.threshold)

    def warnings(self, truth: Floats, found: Floats, folds: NDArray[np.integer] | None = None) -> list[str]:
        """See `Metric`."""
        lines, lacking = metrics.few_rows(len(truth), folds), ~yes_no.both_kinds(truth)
        if lacking.any():
            names = ", ".join(name for name, lacks in zip(self.classes, lacking, strict=True) if lacks)
            lines.append(f"no known yes and no beside each other for {names}: ranks leave these classes out")
        model, constant = self.value(truth, found), self.value(truth, self.constant(truth))
        if not metrics.is_useful(model, constant):
            lines.append(
                f"log loss {model:.4f} is no better than {constant:.4f} of a constant predictor, the share of yes of "
                "each class: the model has learned nothing useful for them"
            )
        return lines


def metric_of(dataset: Dataset) -> Metric:
    """The metric of a data set."""
    return KlMetric(dataset.classes) if dataset.target == "shares" else LogLossMetric(dataset.classes)


MONITORS = {KlMetric.monitor: KlMetric.title, LogLossMetric.monitor: LogLossMetric.title}
"""Key in metrics.jsonl of the value of each kind that decides -> its title."""


def deciding_values(lines: Iterable[Mapping[str, Any]], monitor: str | None = None) -> list[float]:
    """The values that decide which epoch is best, of the lines of metrics.jsonl that have one. `monitor`: of this key
    alone; None: of whatever kind the run's targets are."""
    names = MONITORS if monitor is None else [monitor]
    return [float(line[name]) for line in lines for name in names if name in line]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
