"""Inputs of the model: augmented rows and mixed labels in training, plain rows in evaluation."""

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import Augmenter
from hms_dist.core.errors import UserError
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.learn import step
from hms_dist.train.loop import run
from hms_dist.train.task import WholePicture

CHAIN = """
reverse_probability: 0.5
steps:
  - {class_path: BrightnessContrast}
  - {class_path: GaussNoise, init_args: {probability: 0.3}}
  - {class_path: MixUp, init_args: {probability: 1.0, alpha: 1.0}}
"""


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN)
    return path


@pytest.fixture
def seen(monkeypatch):
    """Targets passed to the loss, and rows that were augmented."""
    targets, rows = [], []

    learned = WholePicture.loss_rows

    def loss(self, model, images, labels, which, key):
        targets.append(labels[: which.num_own])
        return learned(self, model, images, labels, which, key)

    real = Augmenter.__call__

    def augment(self, images, labels, which, **when):
        rows.append(which.rows[: which.num_own].copy())
        return real(self, images, labels, which, **when)

    monkeypatch.setattr(WholePicture, "loss_rows", loss)
    monkeypatch.setattr(Augmenter, "__call__", augment)
    return targets, rows


def test_the_loss_meets_mixed_labels_and_evaluation_changes_nothing(small, chain, seen):
    config = small(augment=chain, epochs=1)
    data = open_run_data(config)
    run(config)
    labels, rows = (np.concatenate(parts) for parts in seen)
    assert len(rows) == data.steps_of[0] * config.global_batch
    assert not set(rows) & set(data.validation_rows)
    assert labels.sum(axis=1) == pytest.approx(1, abs=1e-12)
    plain = data.index.targets[rows]
    assert (np.abs(labels - plain).max(axis=1) > 1e-3).mean() > 0.3
    low, high = (data.index.targets[data.train_rows].min(axis=0), data.index.targets[data.train_rows].max(axis=0))
    assert (labels >= low - 1e-12).all()
    assert (labels <= high + 1e-12).all()


def test_without_augmentation_the_loss_meets_the_labels(small, seen):
    config = small(epochs=1)
    run(config)
    labels, rows = (np.concatenate(parts) for parts in seen)
    assert np.array_equal(labels, open_run_data(config).index.targets[rows])


def test_the_model_sees_other_pictures_each_epoch(small, chain, monkeypatch):
    pictures = {}
    real = step.Stepper._inputs

    def inputs(self, batch, rows, epoch):
        images, labels = real(self, batch, rows, epoch)
        for row, image in zip(batch.rows.tolist(), images, strict=True):
            pictures.setdefault(row, []).append(image.clone())
        return images, labels

    monkeypatch.setattr(step.Stepper, "_inputs", inputs)
    run(small(augment=chain, flip_probability=0))
    twice = [found for found in pictures.values() if len(found) == 2]
    assert len(twice) > 5
    assert not any(torch.equal(*found) for found in twice)


def test_a_chain_that_does_not_fit_is_refused(small, tmp_path):
    path = tmp_path / "holes.yaml"
    path.write_text("steps: [{class_path: CoarseDropout, init_args: {height: 65}}]")
    with pytest.raises(UserError, match="augment: CoarseDropout does not fit the canvas of 64 x 64 pixels"):
        small(augment=path)


def test_mixing_needs_a_group(small, chain):
    with pytest.raises(UserError, match="augment: mixing needs groups of 2 rows or more, found group_size 1"):
        small(augment=chain, group_size=1)


@pytest.mark.parametrize(
    "words",
    [
        {"augment__reverse_probability": 0.5},
        {"augment__steps": '[{"class_path": "TimeShift"}]'},
        {"augment__steps": '[{"class_path": "OneOf", "init_args": {"choices": [{"class_path": "CutMix"}]}}]'},
        {
            "canvas": "audio_pcen_drawn",
            "augment__signal_steps": '[{"class_path": "SignalPasteOther", "init_args": {"place": "free"}}]',
        },
    ],
)
def test_what_moves_the_annotated_window_is_refused(small, words):
    with pytest.raises(UserError, match=r"augment: mixing, shifting and reversing images move the annotated window"):
        small(**words, model__sliding_window="{}", loss__name="bce")
