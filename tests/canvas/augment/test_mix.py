"""Mixes: images and labels with the same share, partners from the group, the published distributions."""

import numpy as np
import pytest
import torch
from scipy import stats

from hms_dist.canvas.augment.augmentation import OneOf
from hms_dist.canvas.augment.light import BrightnessContrast
from hms_dist.canvas.augment.mix import CutMix, MixUp

MIXES = [MixUp(probability=1.0, alpha=1.0), CutMix(probability=1.0), MixUp(probability=0.4), CutMix(probability=0.4)]


def partner_of(found, group, row):
    """Find partner and share of a mixed row, by least squares on labels."""
    best = None
    for other in set(range(8)) - {row}:
        direction = (group.targets[other] - group.targets[row]).numpy()
        share = float((found[row] - group.targets[row]).numpy() @ direction / (direction @ direction))
        rest = np.abs(found[row].numpy() - group.targets[row].numpy() - share * direction).max()
        best = min(best, (rest, other, share)) if best else (rest, other, share)
    return best


@pytest.mark.parametrize("mix", MIXES, ids=str)
def test_pictures_and_labels_are_mixed_by_the_same_share(group, augment, mix):
    images, targets = augment(group, mix)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8, dtype=torch.float64), rtol=0, atol=1e-12)
    for row in range(8):
        if torch.equal(images[row], group.images[row]):
            torch.testing.assert_close(targets[row], group.targets[row], rtol=0, atol=1e-6)
            continue
        rest, other, share = partner_of(targets, group, row)
        assert rest < 1e-9
        mine, theirs = group.images[row, 0].double(), group.images[other, 0].double()
        if isinstance(mix, MixUp):
            torch.testing.assert_close(images[row, 0].double(), mine + share * (theirs - mine), rtol=0, atol=1e-6)
        else:
            foreign = images[row, 0] != group.images[row, 0]
            assert torch.equal(images[row, 0][foreign], group.images[other, 0][foreign])
            rows, columns = foreign.any(dim=1).nonzero(), foreign.any(dim=0).nonzero()
            box = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
            assert foreign.sum() == box == round(share * 48 * 96)


def test_inputs_are_not_changed(group, augment):
    before = group.images.clone(), group.targets.clone()
    augment(group, *MIXES[:2])
    assert torch.equal(before[0], group.images)
    assert torch.equal(before[1], group.targets)


def test_every_other_row_is_a_partner_alike(group, augment):
    counts = np.zeros((8, 8))
    for epoch in range(300):
        _, targets = augment(group, MixUp(probability=1.0, alpha=1.0), epoch=epoch)
        for row in range(8):
            counts[row, partner_of(targets, group, row)[1]] += 1
    assert not counts.diagonal().any()
    others = counts[~np.eye(8, dtype=bool)]
    assert stats.chisquare(others).pvalue > 1e-6


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_draws_from_beta(many, layout, alpha):
    shares = MixUp(alpha=alpha).draw(many, layout)[:, 0]
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-6


def test_cutmix_has_the_share_of_its_area_and_its_centre_anywhere(rng, many, layout):
    share, top, bottom, left, right = CutMix(alpha=1.0).draw(many, layout).T
    np.testing.assert_allclose(share, 1 - (bottom - top) * (right - left) / (48 * 96), rtol=0, atol=1e-12)
    assert min(top.min(), left.min()) == 0
    assert (bottom.max(), right.max()) == (48, 96)
    whole = (top > 0) & (bottom < 48) & (left > 0) & (right < 96) & (bottom - top > 20)
    ratio = (right - left)[whole] / (bottom - top)[whole]
    assert np.abs(ratio - 2).max() < 0.25  # the canvas's shape, to whole pixels
    lengths = np.sqrt(rng.random(200_000))
    places = rng.random((2, 200_000))
    seen = [np.minimum(place + lengths / 2, 1) - np.maximum(place - lengths / 2, 0) for place in places]
    assert share.mean() == pytest.approx(1 - (seen[0] * seen[1]).mean(), abs=0.015)


def test_a_row_alone_has_no_partner(group, augment):
    one = group.only([3])
    images, targets = augment(one, *MIXES[:2])
    assert torch.equal(images, one.images)
    assert torch.equal(targets, one.targets)


def test_a_mix_may_be_at_any_place_of_a_chain_and_a_choice(group, augment):
    light = BrightnessContrast(probability=1.0)
    images, targets = augment(group, light, OneOf(probability=1.0, choices=MIXES[:2]), light)
    assert not torch.equal(targets, group.targets)
    assert images.min() >= 0
    assert images.max() <= 1


def test_a_mix_of_no_shape_is_refused():
    with pytest.raises(ValueError, match="alpha: expected above 0, found 0"):
        MixUp(alpha=0)
