"""Scores over known cells against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    label_ranking_average_precision_score,
    log_loss,
    roc_auc_score,
)

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.results import yes_no
from hms_dist.results.metric_kinds import LogLossMetric, deciding_values, metric_of

LAB = Dataset(name="lab", classes=("a", "b", "c", "d"), target="yes_no")


def drawn(rng: np.random.Generator, rows: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Labels of four classes, a third unknown and each class with both kinds, and predictions with ties."""
    truth = rng.choice([0.0, 1.0, np.nan], (rows, 4))
    truth[:2] = [[0.0] * 4, [1.0] * 4]
    return truth, np.round(rng.random((rows, 4)), 1)


def known(truth: np.ndarray, found: np.ndarray, column: int) -> tuple[np.ndarray, np.ndarray]:
    rows = np.isfinite(truth[:, column])
    return truth[rows, column], found[rows, column]


def test_every_score_is_scikit_learns_on_known_cells(rng: np.random.Generator) -> None:
    truth, found = drawn(rng)
    columns = [known(truth, found, column) for column in range(4)]
    np.testing.assert_allclose(yes_no.class_auroc(truth, found), [roc_auc_score(*pair) for pair in columns])
    np.testing.assert_allclose(yes_no.class_auprc(truth, found), [average_precision_score(*pair) for pair in columns])
    for threshold in (0.3, 0.5):
        expected = [balanced_accuracy_score(labels, scores >= threshold) for labels, scores in columns]
        np.testing.assert_allclose(yes_no.class_balanced_accuracy(truth, found, threshold), expected)
    cells = np.concatenate([labels for labels, _ in columns]), np.concatenate([scores for _, scores in columns])
    clipped = np.clip(cells[1], 1e-15, 1 - 1e-15)
    assert yes_no.log_loss(truth, found) == pytest.approx(log_loss(cells[0], clipped), rel=1e-9)
    counts = yes_no.confusion(truth, found)
    assert counts.sum() == np.isfinite(truth).sum()
    np.testing.assert_array_equal(counts[:, :2].sum(axis=1), (truth == 1).sum(axis=0))
    sensitivity, specificity = counts[:, 0] / counts[:, :2].sum(axis=1), counts[:, 2] / counts[:, 2:].sum(axis=1)
    np.testing.assert_allclose(yes_no.class_balanced_accuracy(truth, found), (sensitivity + specificity) / 2)


def test_lwlrap_is_scikit_learns_weighted_by_labels_if_all_is_known(rng: np.random.Generator) -> None:
    truth, found = drawn(rng)
    truth = np.nan_to_num(truth)
    weights = truth.sum(axis=1)
    expected = label_ranking_average_precision_score(
        truth[weights > 0], found[weights > 0], sample_weight=weights[weights > 0]
    )
    assert yes_no.lwlrap(truth, found) == pytest.approx(expected)


def test_lwlrap_ranks_known_classes_alone() -> None:
    truth = np.array([[1.0, np.nan, 0.0, np.nan], [np.nan] * 4])
    assert yes_no.lwlrap(truth, np.array([[0.5, 0.9, 0.4, 0.8]] * 2)) == 1
    assert yes_no.lwlrap(truth, np.array([[0.5, 0.0, 0.6, 0.0]] * 2)) == 0.5
    assert yes_no.lwlrap(truth[1:], np.zeros((1, 4))) is None


def test_rows_and_classes_add_up_to_the_log_loss(rng: np.random.Generator) -> None:
    truth, found = drawn(rng)
    truth[5] = np.nan
    metric = metric_of(LAB)
    rows, weights = metric.rows(truth, found), metric.row_weights(truth)
    assert np.isnan(rows[5])
    assert weights[5] == 0
    value = np.average(np.nan_to_num(rows), weights=weights)
    assert metric.value(truth, found) == pytest.approx(value)
    parts = np.average(metric.parts(truth, found), weights=np.isfinite(truth).sum(axis=0))
    assert metric.value(truth, found) == pytest.approx(parts)
    constant = metric.value(truth, metric.constant(truth))
    for other in rng.random((200, 4)):
        assert constant <= metric.value(truth, np.broadcast_to(other, truth.shape)) + 1e-12


def test_what_is_not_defined_is_absent(rng: np.random.Generator) -> None:
    truth, found = drawn(rng)
    metric = metric_of(LAB)
    assert metric.monitors(truth, found).keys() == set(metric.monitor_names)
    truth[:, 0] = np.nan
    truth[:, 1:] = np.where(np.isnan(truth[:, 1:]), np.nan, 0)
    lacking = set(metric.monitor_names) - metric.monitors(truth, found).keys()
    assert lacking == {"val_auroc", "val_auprc", "val_balanced_accuracy", "val_lwlrap", "val_log_loss_a"}
    result = metric.score(truth, found, np.zeros(80))
    assert result["auroc"] is None
    assert result["classes"]["a"] == {
        "num_yes": 0, "num_no": 0, "log_loss": None, "auroc": None, "auprc": None, "balanced_accuracy": None,
    }  # fmt: skip
    assert "a, b, c, d" in metric.warnings(truth, found)[0]
    truth[:] = np.nan
    with pytest.raises(UserError, match="no class is known in any of these rows"):
        metric.value(truth, found)
    assert (metric.constant(truth) == 0.5).all()


def test_predictions_outside_of_0_to_1_are_refused(rng: np.random.Generator) -> None:
    truth, found = drawn(rng)
    found[7, 2] = 1.2
    with pytest.raises(UserError, match=r"p.parquet: row 7: expected probabilities in \[0, 1\]"):
        LogLossMetric(LAB.classes).rows(truth, found, "p.parquet")


def test_the_deciding_values_of_either_kind() -> None:
    lines = [{"loss": 1.0}, {"val_kl": 0.5, "val_kl_a": 0.1}, {"val_log_loss": 0.25, "val_auroc": 0.9}]
    assert deciding_values(lines) == [0.5, 0.25]
    assert deciding_values(lines, "val_log_loss") == [0.25]
