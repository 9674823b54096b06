"""Tasks: what a sliding-window net learns from a group, what it outputs, and what it refuses."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from hms_dist.canvas.augment import GroupedRows, one_group
from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.loss import LOSSES, bce_rows
from hms_dist.model.sliding_window import (
    STRIDE,
    SlidingWindowConfig,
    SlidingWindowNet,
    positive_negative_rows,
    sliding_windows,
    window_weights,
)
from hms_dist.results.metrics import label_ranking, log_losses
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.task import AnnotatedWindow, WholePicture

WINDOW = (64.0, 96.0)
KEY = (0, 3, 7)
SIX = one_group(np.arange(6))


def task(**options: object) -> AnnotatedWindow:
    return AnnotatedWindow(config=SlidingWindowConfig(**options), width=160, window=WINDOW)


def marked(rows: int) -> torch.Tensor:
    """Pictures whose pixels tell the row and the column: 1000 * row + column."""
    columns = torch.arange(160, dtype=torch.float64).expand(rows, 1, 32, 160)
    return columns + 1000 * torch.arange(rows, dtype=torch.float64)[:, None, None, None]


def shares(rng: np.random.Generator, rows: int) -> torch.Tensor:
    return torch.from_numpy(rng.multinomial(3, rng.dirichlet(np.full(6, 0.3), rows)) / 3)


class Looking(nn.Module):
    """Answers with the mean of the picture's columns that a window covers, times 1 to 6 for the six classes."""

    def forward(self, images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        columns = nn.functional.avg_pool2d(images, (images.shape[2], STRIDE))[:, 0, 0]
        means = (windows * columns[:, None]).sum(dim=-1)
        return means[..., None] * torch.arange(1, 7)


def test_a_crop_moves_the_window_with_the_picture(rng: np.random.Generator) -> None:
    """Whatever the offset, the columns that the windows cover are those of the annotated window."""
    one = task(crop_share=0.5)
    seen = set()
    for step in range(40):
        images, _, offsets = one.mixed(marked(6), shares(rng, 6), SIX, (0, 0, step))
        assert images.shape == (6, 1, 32, 80)
        assert torch.equal(images[:, 0, 0, 0], 1000.0 * torch.arange(6) + offsets)
        assert ((offsets >= 16) & (offsets <= 64)).all()
        seen |= set(offsets.tolist())
    assert len(seen) > 40
    places = WINDOW[0] - offsets
    for image, place in zip(images, places, strict=True):
        assert float(image[0, 0, int(place)]) % 1000 == WINDOW[0]


def test_the_loss_is_of_the_annotated_window_wherever_it_is(rng: np.random.Generator) -> None:
    """A bump in the annotated columns alone: on the crop the window still sees all of it."""
    images = torch.zeros(6, 1, 32, 160, dtype=torch.float64)
    images[..., 64:96] = 2.0
    targets = shares(rng, 6)
    for share in (1.0, 0.5):
        rows = task(crop_share=share).loss_rows(_Exact(), images, targets, SIX, KEY)
        torch.testing.assert_close(rows, bce_rows(torch.full((6, 6), 2.0, dtype=torch.float64), targets))


class _Exact(nn.Module):
    """As `Looking`, by pixels: finds where its window of 32 pixels begins from the weights of the columns."""

    def forward(self, images: torch.Tensor, windows: torch.Tensor) -> torch.Tensor:
        outputs = []
        for image, weights in zip(images, windows[:, 0], strict=True):
            covered = weights * (WINDOW[1] - WINDOW[0])
            first = int(covered.nonzero()[0])
            begin = round(first * STRIDE + STRIDE - float(covered[first]))
            outputs.append(image[0, 0, begin : begin + 32].mean())
        return torch.stack(outputs)[:, None, None].expand(-1, 1, 6)


@pytest.mark.usefixtures("torch_rng")
def test_negatives_have_a_weight_of_their_own(rng: np.random.Generator) -> None:
    images, targets = torch.randn(6, 1, 32, 160, dtype=torch.float64), shares(rng, 6)
    rows = [task(negative_weight=weight).loss_rows(Looking(), images, targets, SIX, KEY) for weight in (0.0, 1.0, 3.0)]
    torch.testing.assert_close(rows[2] - rows[0], 3 * (rows[1] - rows[0]))
    logits = Looking()(images, torch.eye(10, dtype=torch.float64)[4:6].mean(0)[None, None])[:, 0]
    torch.testing.assert_close(rows[1], bce_rows(logits, targets))


def test_a_pasted_window_brings_its_label(rng: np.random.Generator) -> None:
    one, targets = task(paste_probability=1.0), shares(rng, 6)
    images, labels, _ = one.mixed(marked(6), targets, SIX, KEY)
    donors = (images[:, 0, 0, 70] // 1000).long()
    assert (donors != torch.arange(6)).all()
    assert torch.equal(labels, targets[donors])
    assert torch.equal(images[..., :64], marked(6)[..., :64])
    assert torch.equal(images[..., 96:], marked(6)[..., 96:])


@pytest.mark.usefixtures("torch_rng")
def test_draws_depend_on_seed_epoch_step_and_place_alone(rng: np.random.Generator) -> None:
    one = task(paste_probability=0.5, crop_share=0.5)
    first = one.mixed(marked(6), shares(rng, 6), SIX, KEY)[0]
    torch.rand(5)
    assert torch.equal(one.mixed(marked(6), shares(rng, 6), one_group(np.arange(6) + 90), KEY)[0], first)
    elsewhere = GroupedRows(np.arange(6), np.arange(6, 12), 6, 6)
    assert not torch.equal(one.mixed(marked(6), shares(rng, 6), elsewhere, KEY)[0], first)
    for key in ((1, 3, 7), (0, 4, 7), (0, 3, 8)):
        assert not torch.equal(one.mixed(marked(6), shares(rng, 6), SIX, key)[0], first)


def test_a_row_is_the_same_in_any_batch_that_has_its_partners(rng: np.random.Generator) -> None:
    """Any rows of a step of three groups, as a rank's own, with the partners that they ask for and no others."""
    one, images, targets = task(paste_probability=0.7, crop_share=0.6), marked(12), shares(rng, 12)
    whole = GroupedRows(np.arange(12), np.arange(12), 4, 12)
    numbers = set()
    for step in range(20):
        key = (0, 1, step)
        expected = one.mixed(images, targets, whole, key)
        own = np.sort(rng.choice(12, int(rng.integers(1, 9)), replace=False))
        partners = one.partner_places(whole, own, key)
        numbers.add(len(partners))
        assert not set(partners) & set(own)
        assert set(partners // 4) <= set(own // 4)
        places = np.concatenate([own, partners])
        found = one.mixed(images[places], targets[places], GroupedRows(places, places, 4, len(own)), key)
        for tensor, all_rows in zip(found, expected, strict=True):
            assert torch.equal(tensor, all_rows[own])
    assert len(numbers) > 2


def test_nothing_is_drawn_where_nothing_is_asked(rng: np.random.Generator) -> None:
    images, targets = marked(4), shares(rng, 4)
    rows = one_group(np.arange(4))
    same, labels, offsets = task().mixed(images, targets, rows, KEY)
    for tensor, given in ((same, images), (labels, targets)):
        assert torch.equal(tensor, given)
        assert tensor.data_ptr() == given.data_ptr()
    assert not offsets.any()
    assert not len(task().partner_places(rows, np.arange(2), KEY))


@pytest.mark.parametrize("pooling", ["max", "noisy_or", "window"])
@pytest.mark.usefixtures("torch_rng")
def test_answers_against_direct_formulas(pooling: str) -> None:
    images = torch.randn(5, 1, 32, 160, dtype=torch.float64) * 8
    outputs = task(pooling=pooling).predict(Looking(), images)
    columns = images.reshape(5, 32, 10, 16).mean(dim=(1, 3)).numpy()
    windows = 1 / (1 + np.exp(-(columns[:, 1:] + columns[:, :-1])[..., None] / 2 * np.arange(1, 7)))
    own = windows[:, 4]
    row = {"max": windows.max(axis=1), "noisy_or": 1 - np.prod(1 - windows, axis=1), "window": own}[pooling]
    np.testing.assert_allclose(outputs[:, 6:].numpy(), own, rtol=1e-9)
    np.testing.assert_allclose(outputs[:, :6].numpy(), row / row.sum(axis=1, keepdims=True), rtol=1e-9)


@pytest.mark.usefixtures("torch_rng")
def test_a_net_learns_what_the_windows_show_and_finds_it_elsewhere() -> None:
    """Noise with a mark in the annotated window, its height the class: learned from crops, then found along time."""
    one = task(crop_share=0.6, negative_weight=2.0)
    model = SlidingWindowNet(_Small())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    taken, rows = [], one_group(np.arange(12))
    for step in range(50):
        classes = torch.arange(6).repeat(2)
        loss = one.loss_rows(model, _with_marks(classes, 64), torch.eye(6)[classes], rows, (0, 0, step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        taken.append(float(loss.detach()))
    assert np.mean(taken[-5:]) < 0.4 * np.mean(taken[:5])
    elsewhere = _with_marks(torch.arange(6), 112)
    model.eval()
    with torch.no_grad():
        outputs = one.predict(model, elsewhere)
        lefts = sliding_windows(32, 160)
        logits = model(elsewhere, window_weights(lefts, 32, 160)[None])
    assert (outputs[:, :6].argmax(dim=1) == torch.arange(6)).double().mean() > 0.6
    found = lefts[logits[torch.arange(6), :, torch.arange(6)].argmax(dim=1)]
    assert ((found - 112).abs() <= 32).double().mean() > 0.6


class _Small(nn.Module):
    """Four convolutions of stride 2, and a head that knows heights."""

    def __init__(self) -> None:
        super().__init__()
        sizes = [1, 12, 12, 12, 12]
        layers = [
            nn.Sequential(nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
            for before, after in pairwise(sizes)
        ]
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(3 * 12, 6)

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features.flatten(1))


def _with_marks(classes: torch.Tensor, left: int) -> torch.Tensor:
    """Pictures [m, 1, 48, 160] of noise, with a bar from column `left`, 32 wide, at a height that is the class."""
    images = 0.1 * torch.randn(len(classes), 1, 48, 160)
    for image, label in zip(images, classes.tolist(), strict=True):
        image[0, 8 * label : 8 * label + 4, left : left + 32] += 2
    return images


@pytest.mark.usefixtures("torch_rng")
def test_answers_of_a_net_are_probabilities() -> None:
    model = build(ModelConfig(name="resnet10t", sliding_window=SlidingWindowConfig()), seed=0).eval()
    images = torch.rand(3, 1, 32, 160)
    for pooling in ("max", "noisy_or", "window"):
        outputs = task(pooling=pooling).predict(model, images)
        assert outputs.shape == (3, 12)
        assert outputs.dtype == torch.float32
        torch.testing.assert_close(outputs[:, :6].sum(dim=1), torch.ones(3))
        assert ((outputs > 0) & (outputs < 1)).all()


def test_monitors_are_of_the_window_and_of_the_row(rng: np.random.Generator) -> None:
    truth, outputs = shares(rng, 30).numpy(), rng.random((30, 12))
    found = task().monitors(truth, outputs)
    assert tuple(found) == task().monitor_names
    assert [*found.values()][:2] == pytest.approx(log_losses(truth, outputs[:, 6:]))
    top = truth >= truth.max(axis=1, keepdims=True)
    assert found["val_lrap"] == pytest.approx(label_ranking(top, outputs[:, :6]))


def test_an_unknown_class_is_in_neither_part_of_the_loss_nor_in_the_monitors(rng: np.random.Generator) -> None:
    targets = torch.from_numpy(rng.choice([0.0, 1.0, np.nan], (20, 6)))
    logits = torch.from_numpy(rng.normal(0, 2, (20, 6)))
    positive, negative = positive_negative_rows(logits, targets)
    known = targets.isfinite()
    expected = LOSSES["bce_known"].rows(logits, targets) * known.sum(dim=1) / 6
    torch.testing.assert_close(positive + negative, expected)
    others = torch.where(known, logits, 99.0)
    torch.testing.assert_close(positive_negative_rows(others, targets), (positive, negative))
    answers = rng.random((20, 12))
    lab = Dataset(name="lab", classes=("a", "b", "c", "d", "e", "f"), target="yes_no")
    one = AnnotatedWindow(config=SlidingWindowConfig(), width=160, window=WINDOW, dataset=lab)
    found = one.monitors(targets.numpy(), answers)
    assert tuple(found) == one.monitor_names == ("val_positive_log_loss", "val_negative_log_loss")
    own = answers[:, 6:]
    assert found["val_positive_log_loss"] == pytest.approx(-np.log(own[targets.numpy() == 1]).mean())
    assert found["val_negative_log_loss"] == pytest.approx(-np.log(1 - own[targets.numpy() == 0]).mean())


@pytest.mark.usefixtures("torch_rng")
def test_answers_of_yes_or_no_are_not_divided_by_their_sum() -> None:
    lab = Dataset(name="lab", classes=("a", "b"), target="yes_no")
    config = SlidingWindowConfig(pooling="window")
    model = build(ModelConfig(name="resnet10t", sliding_window=config), 0, 2).eval()
    one = AnnotatedWindow(config=config, width=160, window=WINDOW, dataset=lab)
    answers = one.predict(model, torch.rand(3, 1, 32, 160))
    assert answers.shape == (3, one.num_outputs) == (3, 4)
    torch.testing.assert_close(answers[:, :2], answers[:, 2:])


@pytest.mark.usefixtures("torch_rng")
def test_a_whole_picture_is_the_loss_and_its_probabilities(rng: np.random.Generator) -> None:
    model, images, targets = nn.Sequential(nn.Flatten(), nn.Linear(8, 6)), torch.rand(4, 1, 2, 4), shares(rng, 4)
    for loss in LOSSES.values():
        whole = WholePicture(loss)
        rows = one_group(np.arange(4))
        assert torch.equal(whole.loss_rows(model, images, targets, rows, KEY), loss.rows(model(images), targets))
        own = GroupedRows(np.arange(4), np.arange(4), 4, 3)
        expected = loss.rows(model(images[:3]), targets[:3])
        assert torch.equal(whole.loss_rows(model, images, targets, own, KEY), expected)
        assert not len(whole.partner_places(rows, np.arange(3), KEY))
        assert torch.equal(whole.predict(model, images), loss.probabilities(model(images)))
        assert whole.monitors(targets.numpy(), targets.numpy()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"canvas: placement 0 \('eeg_spectrogram'\) is arranged time_down; a sliding window needs"),
        (
            {"loss__name": "kl"},
            "loss.name: a sliding window needs the loss of independent classes, found kl; set it to bce",
        ),
    ],
)
def test_what_a_run_cannot_slide_over_is_refused_before_it_starts(small, options, message) -> None:
    config = small(**{"model__sliding_window": "{}", "loss__name": "bce", **options})
    with pytest.raises(UserError, match=message):
        open_run_data(config)
    assert not config.out.exists()
