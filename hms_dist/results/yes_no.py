"""Scores of independent yes/no classes, over the known cells of tables [rows, classes].

The truth is 1 (yes), 0 (no) or NaN (unknown). A mean over classes has those with a known yes and a known no; it is None
without any. AUROC (Hanley and McNeil, 1982) and average precision are scikit-learn's.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.results.metrics import SMALLEST

Floats = NDArray[np.float64]
THRESHOLD = 0.5
"""Probability from which a class counts as found, for the balanced accuracy."""


def cell_losses(truth: Floats, prediction: Floats, name: str = "predictions") -> Floats:
    """Binary cross-entropy of each cell, NaN where the truth is unknown.

    Predictions are clipped to [SMALLEST, 1 - SMALLEST]. Raises UserError, with `name`, for values outside of [0, 1].
    """
    if truth.shape != prediction.shape:
        raise UserError(f"{name}: expected {truth.shape[0]} rows x {truth.shape[1]}, found {prediction.shape}")
    bad = np.flatnonzero(~((prediction >= 0) & (prediction <= 1)).all(axis=1))
    if bad.size:
        found = prediction[bad[0]].tolist()
        raise UserError(f"{name}: row {bad[0]}: expected probabilities in [0, 1], found {found}")
    clipped = np.clip(prediction, SMALLEST, 1 - SMALLEST)
    return np.asarray(-(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped)))


def log_loss(truth: Floats, prediction: Floats) -> float:
    """Mean of `cell_losses` over the known cells of tables [rows, classes]. Raises UserError if there is none."""
    losses = cell_losses(truth, prediction)
    if not np.isfinite(losses).any():
        raise UserError("labels: no class is known in any of these rows; scoring needs known classes")
    return float(np.nanmean(losses))


def constant_prediction(truth: Floats) -> Floats:
    """The best constant prediction, repeated [rows, classes]: each class's share of yes among known cells, or 0.5."""
    known = np.isfinite(truth)
    shares = np.where(known, truth, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.broadcast_to(np.where(known.any(axis=0), shares, 0.5), truth.shape)


def both_kinds(truth: Floats) -> NDArray[np.bool_]:
    """Which classes have a known yes and a known no [classes]."""
    return np.asarray((truth == 1).any(axis=0) & (truth == 0).any(axis=0))


def class_auroc(truth: Floats, prediction: Floats) -> Floats:
    """Area under the receiver operating characteristic [classes]; NaN for a class without a known yes and no."""
    from sklearn.metrics import roc_auc_score

    return _by_class(truth, prediction, roc_auc_score)


def class_auprc(truth: Floats, prediction: Floats) -> Floats:
    """Average precision of each class, the area under its precision-recall curve; NaN as `class_auroc`."""
    from sklearn.metrics import average_precision_score

    return _by_class(truth, prediction, average_precision_score)


def class_balanced_accuracy(truth: Floats, prediction: Floats, threshold: float = THRESHOLD) -> Floats:
    """Mean of sensitivity and specificity of each class at a threshold; NaN as `class_auroc`."""

    def accuracy(of_class: Floats, found: Floats) -> float:
        positive = found >= threshold
        return float((positive[of_class == 1].mean() + (~positive[of_class == 0]).mean()) / 2)

    return _by_class(truth, prediction, accuracy)


def lwlrap(truth: Floats, prediction: Floats) -> float | None:
    """Label-weighted label ranking average precision over known cells of tables [rows, classes].

    The metric of RFCX, from task 2 of DCASE 2019. For each yes, the share of yes among the row's known classes that
    score at least as high; the mean over all of them. None without any.
    """
    from scipy.stats import rankdata

    precisions = []
    for labels, scores in zip(truth, prediction, strict=True):
        yes, known = scores[labels == 1], scores[np.isfinite(labels)]
        if len(yes):
            above = rankdata(-known, method="max")
            of_yes = rankdata(-yes, method="max")
            precisions.append(of_yes / above[(labels == 1)[np.isfinite(labels)]])
    return float(np.concatenate(precisions).mean()) if precisions else None


def recording_lwlrap(recordings: NDArray[np.int64], truth: Floats, prediction: Floats) -> float | None:
    """`lwlrap` of recordings [rows], each with the classes that any of its rows knows: present if present in one, and
    the largest prediction of the rows that know the class.

    A row that knows one class alone ranks nothing; its recording may know several.
    """
    _, of_row = np.unique(recordings, return_inverse=True)
    joined, found = np.full((2, of_row.max(initial=-1) + 1, truth.shape[1]), np.nan)
    np.fmax.at(joined, of_row, truth)
    np.fmax.at(found, of_row, np.where(np.isnan(truth), np.nan, prediction))
    return lwlrap(joined, found)


def confusion(truth: Floats, prediction: Floats, threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Counts of known cells [classes, 4]: found and missed yes, found and missed no."""
    positive = prediction >= threshold
    kinds = [(truth == 1) & positive, (truth == 1) & ~positive, (truth == 0) & ~positive, (truth == 0) & positive]
    return np.stack([kind.sum(axis=0) for kind in kinds], axis=1).astype(np.int64)


def macro(values: Floats) -> float | None:
    """Mean of `values` [classes] over the classes that have one; None without any."""
    return float(np.nanmean(values)) if np.isfinite(values).any() else None


def _by_class(truth: Floats, prediction: Floats, function: Any) -> Floats:
    values = np.full(truth.shape[1], np.nan)
    for number in np.flatnonzero(both_kinds(truth)):
        known = np.isfinite(truth[:, number])
        values[number] = function(truth[known, number], prediction[known, number])
    return values
