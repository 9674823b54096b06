"""Sliding windows at a different place in each row, as annotations of audio have: the loss, crops, pastes, predictions
and monitors of each row are those of its own window."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from hms_dist.canvas.augment import GroupedRows, one_group
from hms_dist.datasets import Dataset
from hms_dist.model.loss import LOSSES
from hms_dist.model.sliding_window import STRIDE, SlidingWindowConfig, unknown_rows
from hms_dist.model.window_mixing import crop_offsets_of, pasted_at
from hms_dist.train.learn.evaluate import predict_in_memory
from hms_dist.train.task import AnnotatedWindow

BIRDS = Dataset(
    name="birds", classes=("a", "b", "c"), target="yes_no", signal="audio", rate_hz=8000, window_s=2.0, context_s=2.0,
    annotated_s=0.4,
)  # fmt: skip
WIDTH, LENGTH = 160, 32
LEFTS = np.array([0.0, 64.0, 128.0, 32.0, 16.0, np.nan])
MIDDLE = (64.0, 96.0)
KEY = (0, 1, 2)
SIX = one_group(np.arange(6))


def task(**options: object) -> AnnotatedWindow:
    config = SlidingWindowConfig(**{"pooling": "window", **options})
    return AnnotatedWindow(config=config, width=WIDTH, window=MIDDLE, dataset=BIRDS, lefts=LEFTS)


class Columns(nn.Module):
    """Predicts the mean of the columns that a window covers, for every class."""

    def forward(self, images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        columns = nn.functional.avg_pool2d(images, (images.shape[2], STRIDE))[:, 0, 0]
        return (windows * columns[:, None]).sum(dim=-1)[..., None].expand(-1, -1, 3)


def bumps(value: float = 2.0) -> torch.Tensor:
    """Pictures of `value` in the row's own window and -`value` elsewhere."""
    images = torch.full((6, 1, 32, WIDTH), -value, dtype=torch.float64)
    for image, left in zip(images, np.nan_to_num(LEFTS, nan=MIDDLE[0]), strict=True):
        image[..., int(left) : int(left) + LENGTH] = value
    return images


def targets(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.choice([0.0, 1.0, np.nan], (6, 3)))


def test_the_loss_is_of_each_rows_own_window(rng: np.random.Generator) -> None:
    truth = targets(rng)
    rows = task().loss_rows(Columns(), bumps(), truth, SIX, KEY)
    logits = torch.full((6, 3), 2.0, dtype=torch.float64)
    known = truth.isfinite().sum(dim=1)
    torch.testing.assert_close(rows, LOSSES["bce_known"].rows(logits, truth) * known / 3)
    order = rng.permutation(6)
    shuffled = GroupedRows(order, np.arange(6), 6, 6)
    again = task().loss_rows(Columns(), bumps()[order], truth[order], shuffled, KEY)
    torch.testing.assert_close(again, rows[order])


def test_a_crop_holds_each_rows_own_window(rng: np.random.Generator) -> None:
    lefts, length, width = rng.uniform(0, WIDTH - LENGTH, 500), float(LENGTH), 64
    offsets = crop_offsets_of(rng.random(500), lefts, length, WIDTH, width).numpy()
    assert ((offsets >= 0) & (offsets <= WIDTH - width)).all()
    assert ((offsets <= lefts) & (offsets + width >= lefts + length)).all()
    rows = task(crop_share=0.5).loss_rows(Columns(), bumps(), torch.ones(6, 3), SIX, KEY)
    _, _, starts = task(crop_share=0.5).mixed(bumps(), torch.ones(6, 3), SIX, KEY)
    assert len(set(starts.tolist())) > 1
    # Features of a crop that begins within a column mix two of them, so only crops at whole columns are exact.
    exact = starts % STRIDE == 0
    expected = torch.full((6,), float(nn.functional.softplus(torch.tensor(-2.0))), dtype=torch.float64)
    torch.testing.assert_close(rows[exact], expected[exact])


@pytest.mark.usefixtures("torch_rng")
def test_a_pasted_window_comes_from_the_donors_place_to_the_rows(rng: np.random.Generator) -> None:
    images, donors = torch.rand(20, 1, 4, WIDTH), torch.rand(20, 1, 4, WIDTH)
    lefts, others = (torch.from_numpy(rng.integers(0, WIDTH - LENGTH + 1, 20)).double() for _ in range(2))
    found = pasted_at(images, donors, lefts, others, float(LENGTH))
    for row in range(20):
        expected, left, other = images[row].clone(), int(lefts[row]), int(others[row])
        expected[..., left : left + LENGTH] = donors[row, ..., other : other + LENGTH]
        assert torch.equal(found[row], expected)
    one = task(paste_probability=1.0)
    truth = targets(rng)
    pasted, labels, _ = one.mixed(bumps(), truth, SIX, KEY)
    assert torch.equal(pasted, bumps()), "every window is a bump, wherever it was"
    assert not torch.equal(labels.nan_to_num(nan=-1), truth.nan_to_num(nan=-1))


def test_a_row_is_answered_from_its_window_and_without_one_from_all() -> None:
    images = bumps()
    images[5] = -1.0
    images[5, ..., 32:64] = 3.0
    answers = task().predict(Columns(), images, np.arange(6))
    assert answers.shape == (6, 6)
    high = torch.sigmoid(torch.tensor(2.0, dtype=torch.float64))
    torch.testing.assert_close(answers[:5, :3], high.expand(5, 3))
    torch.testing.assert_close(answers[5, :3], torch.sigmoid(torch.tensor(3.0, dtype=torch.float64)).expand(3))
    nowhere = task().predict(Columns(), images)
    torch.testing.assert_close(nowhere[5], answers[5])
    assert (nowhere[:5, :3] >= high - 1e-9).all(), "rows of no set: the largest of all windows"


def test_halves_of_a_batch_keep_their_rows() -> None:
    class Small(Columns):
        def forward(self, images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
            if len(images) > 2:
                raise torch.OutOfMemoryError
            return super().forward(images, windows)

    order = np.array([4, 2, 0, 1, 3])
    images = bumps()[order]
    expected = task().predict(Columns(), images, order)
    assert torch.equal(predict_in_memory(task(), Small(), images, order), expected)


def test_lrap_is_of_rows_with_one_known_yes(rng: np.random.Generator) -> None:
    nan = np.nan
    truth = np.array([[1, nan, nan], [nan, 0, nan], [nan, nan, 1.0], [1, 1, nan]])
    own = np.array([[0.5, 0.7, 0.1], [0.9, 0.9, 0.9], [0.2, 0.1, 0.8], [0.1, 0.2, 0.3]])
    outputs = np.concatenate([rng.random((4, 3)), own], axis=1)
    found = task().monitors(truth, outputs)
    assert tuple(found) == task().monitor_names
    assert found["val_lrap"] == pytest.approx((1 / 2 + 1) / 2)
    assert found["val_negative_log_loss"] == pytest.approx(-np.log(0.1))
    assert "val_lrap" not in task().monitors(np.array([[nan, 0, nan]]), outputs[:1])


def test_unknown_classes_may_count_as_absent_in_rows_with_a_yes(rng: np.random.Generator) -> None:
    nan = np.nan
    truth = torch.tensor([[1, nan, 0], [nan, 0, nan], [nan, nan, nan]], dtype=torch.float64)
    logits = torch.from_numpy(rng.normal(0, 2, (3, 3)))
    expected = [float(nn.functional.softplus(logits[0, 1])) / 3, 0, 0]
    assert unknown_rows(logits, truth).tolist() == pytest.approx(expected)
    one = task()
    weighted = replace(one, config=replace(one.config, unknown_weight=2.0, negative_weight=0.0))
    labels = torch.full((6, 3), nan, dtype=torch.float64)
    labels[:, 0] = 1
    rows = weighted.loss_rows(Columns(), bumps(), labels, SIX, KEY)
    two = torch.tensor(2.0, dtype=torch.float64)
    value = (nn.functional.softplus(-two) + 2 * 2 * nn.functional.softplus(two)) / 3
    torch.testing.assert_close(rows, value.expand(6))
