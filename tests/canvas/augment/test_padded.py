"""Steps with tables of fixed shapes give the images and targets of the augmenter."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import AUGMENTATIONS, AugmentConfig, Augmenter, GroupedRows, RowFacts
from hms_dist.canvas.augment.augmentation import OneOf
from hms_dist.canvas.augment.blur import Blur, MotionBlur
from hms_dist.canvas.augment.erase import XYMasking
from hms_dist.canvas.augment.light import GaussNoise
from hms_dist.canvas.augment.mix import CutMix, MixUp
from hms_dist.canvas.augment.padded import PaddedSteps
from hms_dist.config.load import load

RECIPES = ("audio", "peers", "rfcx", "sixteenth_place")
NUM_ROWS, GROUP = 12, 4


@pytest.fixture
def compare(tall, rng):
    """Returns a function that compares passes of random rows; it returns how many of them have room."""
    num_classes = 5
    facts = RowFacts(rng.random(1000) < 0.5, np.tile([2.0, 3.0], (1000, 1)), bool(rng.integers(2)))

    def run(steps, *, passes=3):
        augmenter = Augmenter(AugmentConfig(steps=steps), tall, facts)
        padded = PaddedSteps(augmenter, NUM_ROWS)
        flat, num_filled = np.full(padded.size, np.nan), 0
        for epoch in range(passes):
            images = torch.from_numpy(rng.random((NUM_ROWS, 1, 80, 96), dtype=np.float32))
            targets = torch.from_numpy(rng.random((NUM_ROWS, num_classes)))
            if facts.yes_no:
                targets[rng.random(targets.shape) < 0.2] = torch.nan
            rows = GroupedRows(rng.integers(0, 1000, NUM_ROWS), np.arange(NUM_ROWS), GROUP, NUM_ROWS)
            when = {"seed": int(rng.integers(2**32)), "epoch": epoch}
            if not padded.fill(flat, rows, **when):
                continue
            num_filled += 1
            expected = augmenter(images, targets, rows, **when)
            before = images.clone(), targets.clone()
            found = padded.apply(torch.from_numpy(flat), images, targets)
            for one, other in zip((images, targets), before, strict=True):
                assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))
            planned = [one for one in augmenter.plan(rows, **when) if one is not None]
            alone = any(isinstance(one.step, Blur) and len(one.table) == 1 for one in planned)
            # one image is filtered by another algorithm than several
            torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-6 if alone else 0)
            torch.testing.assert_close(found[1], expected[1], rtol=0, atol=0, equal_nan=True)
        return num_filled

    return run


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(compare, repository, name):
    assert {path.stem for path in (repository / "configs/augment").glob("*.yaml")} == set(RECIPES)
    compare(load(AugmentConfig, ["--config", name]).steps)


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_each_augmentation_for_no_row_some_rows_and_all(compare, each, probability):
    filled = compare((replace(each, probability=probability),))
    assert filled == 3 or probability == 0.3 or isinstance(each, OneOf)


def test_a_chain_of_all_in_random_order(compare, rng):
    kinds = [kind for kind in AUGMENTATIONS.values() if kind is not OneOf]
    choices = (MixUp(), CutMix(rows="positive"), XYMasking(rows="negative"), OneOf(choices=(MotionBlur(), CutMix())))
    steps = [*(kind(probability=float(rng.random())) for kind in kinds), OneOf(choices=choices, probability=0.8)]
    compare(tuple(steps[number] for number in rng.permutation(len(steps))))


def test_more_rows_than_there_is_room_for(tall):
    """All rows of a pass are the same one, so that all or none of them are changed."""
    padded = PaddedSteps(Augmenter(AugmentConfig(steps=(GaussNoise(probability=0.1),)), tall), NUM_ROWS)
    flat, places = np.zeros(padded.size), np.arange(NUM_ROWS)
    filled = [
        padded.fill(flat, GroupedRows(np.full(NUM_ROWS, row), places, GROUP, NUM_ROWS), seed=0, epoch=0)
        for row in range(200)
    ]
    assert 150 < sum(filled) < 200


def test_tables_have_room_in_almost_every_pass_and_not_for_every_row(tall, rng):
    steps = load(AugmentConfig, ["--config", "sixteenth_place"]).steps
    padded, seed = PaddedSteps(Augmenter(AugmentConfig(steps=steps), tall), 32), int(rng.integers(2**32))
    flat, places = np.zeros(padded.size), np.arange(32)
    rows = rng.integers(0, 10**6, (300, 32))
    filled = [padded.fill(flat, GroupedRows(one, places, 8, 32), seed=seed, epoch=2) for one in rows]
    assert sum(filled) > 290
    assert padded.size < 16 * (5 + 8 + 50) + 30 * (3 + 21)  # columns of noise, blurs; brightness, holes
