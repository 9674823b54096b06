"""Kaggle's KL metric, and further scores: per class, by votes, share of a gap closed, ranking.

`metric_kinds` chooses between these, for shares of votes, and `yes_no`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError

Floats = NDArray[np.float64]
SMALLEST = 1e-15
"""Predictions are clipped to [SMALLEST, 1 - SMALLEST] and not renormalised, as by Kaggle."""
FEW_ROWS = 30
"""Below this number of rows a KL gets a warning."""
VOTE_STRATA = ((1, 7), (8, None))
"""Low- and high-vote rows: inclusive bounds of the number of voters; None: no upper bound."""


def kaggle_kl(truth: Floats, prediction: Floats) -> float:
    """Compute the mean over rows of sum_c p ln(p / q), as kaggle/metric/kullback-leibler-divergence does.

    Both tables [rows, classes] must hold values in [0, 1] and rows that sum to 1 (np.allclose); anything else raises
    UserError, as Kaggle rejects it. Terms with p = 0 count 0; the truth is not clipped.
    """
    return float(row_kl(truth, prediction).mean())


def row_kl(truth: Floats, prediction: Floats, name: str = "submission") -> Floats:
    """Compute the KL of each row [rows]; checks and clipping as `kaggle_kl`. `name` is the table in errors."""
    return cell_kl(truth, prediction, name).sum(axis=1)


def class_kl(truth: Floats, prediction: Floats) -> Floats:
    """Mean contribution of each class to the KL [classes]; they sum to `kaggle_kl`."""
    return cell_kl(truth, prediction).mean(axis=0)


def seed001_cv(truth: Floats, prediction: Floats) -> float:
    """The wavelet ablation's own score: the mean KL of the log-softmax of *probabilities*, treated as logits.

    It hardly varies: for rows with a unanimous vote it is 1.04 for a certain correct prediction, 1.79 for a uniform
    one, 2.04 for a certain wrong one. Only for comparison with the source's figures. Checks as `kaggle_kl`.
    """
    truth, prediction = _checked("solution", truth), _checked("submission", prediction)
    logs = prediction - np.log(np.exp(prediction).sum(axis=1, keepdims=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(truth > 0, truth * (np.log(truth) - logs), 0.0).sum(axis=1).mean())


def constant_prediction(truth: Floats) -> Floats:
    """The best constant prediction, the mean of the targets, repeated [rows, classes]."""
    return np.broadcast_to(truth.mean(axis=0), truth.shape)


def gap_closed(model_kl: float, constant_kl: float, oracle_kl: float) -> float | None:
    """Fraction of the gap between the constant predictor and the oracle that the model closes; None: no gap."""
    return (constant_kl - model_kl) / (constant_kl - oracle_kl) if constant_kl > oracle_kl else None


def log_losses(truth: Floats, prediction: Floats) -> tuple[float, float]:
    """Mean binary cross-entropy over the classes with a vote, and over those without (the bird-call detector's
    monitors).

    `truth` [rows, classes]: shares of the votes. `prediction`: independent probabilities of the classes, clipped as in
    `kaggle_kl`. An empty mean is 0.
    """
    clipped = np.clip(prediction, SMALLEST, 1 - SMALLEST)
    losses = -(truth * np.log(clipped) + (1 - truth) * np.log1p(-clipped))  # an unknown class is in neither mean
    positive, negative = losses[truth > 0], losses[truth <= 0]
    return float(positive.sum() / max(positive.size, 1)), float(negative.sum() / max(negative.size, 1))


def label_ranking(labels: NDArray[np.bool_], scores: Floats) -> float:
    """Label ranking average precision, 0 to 1: the fraction of labels among the classes scored at or above each label.

    Both tables [rows, classes]. Averaged over each row's labels, then over rows; a row with no label, or with all,
    counts 1. With one label per row it is the mean of 1 / rank.
    """
    above = scores[:, None, :] >= scores[:, :, None]
    share = (above & labels[:, None, :]).sum(axis=2) / above.sum(axis=2)
    num_labels = labels.sum(axis=1)
    precision = (share * labels).sum(axis=1) / np.maximum(num_labels, 1)
    return float(np.where(num_labels == 0, 1.0, precision).mean())


def consensus_confusion(truth: Floats, prediction: Floats) -> NDArray[np.int64]:
    """Count rows by the class with most votes and the most probable class [classes, classes]; ties go to the first."""
    counts = np.zeros((truth.shape[1], truth.shape[1]), np.int64)
    np.add.at(counts, (truth.argmax(axis=1), prediction.argmax(axis=1)), 1)
    return counts


def strata(num_voters: NDArray[np.integer] | Floats) -> dict[str, NDArray[np.bool_]]:
    """Named row masks [rows]: all rows, then each of VOTE_STRATA that has rows.

    `num_voters` [rows]: any integer dtype, or float64.
    """
    masks = {"all": np.ones(len(num_voters), bool)}
    for low, high in VOTE_STRATA:
        mask = (num_voters >= low) & (num_voters <= (high or np.inf))
        if mask.any():
            masks[f"votes_{low}_to_{high}" if high else f"votes_from_{low}"] = mask
    return masks


def score(
    truth: Floats,
    prediction: Floats,
    num_voters: NDArray[np.integer] | Floats,
    oracle: Floats | None = None,
    *,
    classes: Sequence[str],
) -> dict[str, Any]:
    """KL by votes and class, the constant predictor's KL and, if the oracle's table is known, its KL and the gap
    closed. Tables [rows, classes]; `num_voters` [rows], any integer dtype or float64.

    The constant predictor is the mean target of the scored rows, the best possible one.
    """
    model = row_kl(truth, prediction)
    constant_table = constant_prediction(truth)
    constant = row_kl(truth, constant_table)
    result: dict[str, Any] = {"kl": float(model.mean()), "num_rows": len(truth)}
    result["class_kl"] = _by_class(class_kl(truth, prediction), classes)
    best = row_kl(truth, oracle) if oracle is not None else None
    for name, mask in strata(num_voters).items():
        entry: dict[str, Any] = {
            "num_rows": int(mask.sum()),
            "kl": float(model[mask].mean()),
            "constant_kl": float(constant[mask].mean()),
            "class_kl": _by_class(class_kl(truth[mask], prediction[mask]), classes),
            "constant_class_kl": _by_class(class_kl(truth[mask], constant_table[mask]), classes),
        }
        if best is not None:
            entry["oracle_kl"] = float(best[mask].mean())
            entry["gap_closed"] = gap_closed(entry["kl"], entry["constant_kl"], entry["oracle_kl"])
        result.setdefault("strata", {})[name] = entry
    return result


def score_warnings(
    truth: Floats, prediction: Floats, folds: NDArray[np.integer] | None = None, *, classes: Sequence[str]
) -> list[str]:
    """List reasons why the KL of these rows is not meaningful; empty if there is none.

    `folds` [rows], any integer dtype: the fold of each row; None: all rows are of one fold.
    """
    lines = few_rows(len(truth), folds)
    if len(np.unique(truth.argmax(axis=1))) == 1:
        name = classes[int(truth[0].argmax())]
        lines.append(f"all rows have most votes for {name}: the score does not show whether classes are distinguished")
    model, constant = kaggle_kl(truth, prediction), kaggle_kl(truth, constant_prediction(truth))
    if not is_useful(model, constant):
        lines.append(
            f"KL {model:.4f} is no better than {constant:.4f} of a constant predictor, the mean of these rows' votes "
            "for each: the model has learned nothing useful for them"
        )
    return lines


def few_rows(num_rows: int, folds: NDArray[np.integer] | None) -> list[str]:
    """The warning of `score_warnings` about few rows, or none. `folds` [rows]: any integer dtype."""
    counts = [num_rows] if folds is None else np.unique(folds, return_counts=True)[1].tolist()
    if min(counts) >= FEW_ROWS:
        return []
    where = "" if len(counts) == 1 else f" in a fold of {len(counts)}"
    return [f"{min(counts)} rows{where}: fewer than {FEW_ROWS} are too few to generalise to other patients"]


def is_useful(model_kl: float, constant_kl: float) -> bool:
    """Whether a model is better than the constant predictor by more than 1 %."""
    return model_kl < 0.99 * constant_kl


def _by_class(values: Floats, classes: Sequence[str]) -> dict[str, float]:
    return dict(zip(classes, values.tolist(), strict=True))


def cell_kl(truth: Floats, prediction: Floats, name: str = "submission") -> Floats:
    """Compute the contribution of each class to the KL of each row [rows, classes]. Raises UserError as `row_kl`."""
    truth, prediction = _checked("solution", truth), _checked(name, prediction)
    if truth.shape != prediction.shape:
        raise UserError(f"{name}: expected {truth.shape[0]} rows x {truth.shape[1]}, found {prediction.shape}")
    clipped = np.clip(prediction, SMALLEST, 1 - SMALLEST)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(truth > 0, truth * np.log(truth / clipped), 0.0)


def _checked(name: str, table: Any) -> Floats:
    try:
        values = np.asarray(table, np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected numbers, found {error}") from error
    if values.ndim != 2 or not len(values):
        raise UserError(f"{name}: expected rows of probabilities, found shape {values.shape}")
    bad = np.flatnonzero(~((values >= 0) & (values <= 1)).all(axis=1))
    if bad.size:
        raise UserError(f"{name}: row {bad[0]}: expected probabilities in [0, 1], found {values[bad[0]].tolist()}")
    sums = values.sum(axis=1)
    bad = np.flatnonzero(~np.isclose(sums, 1))
    if bad.size:
        raise UserError(f"{name}: row {bad[0]}: expected a sum of 1, found {sums[bad[0]]:.6g}; normalise the row")
    return values
