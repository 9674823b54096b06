"""Holes and stripes: their sizes, places and number, against plain numpy."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional as published

from hms_dist.canvas.augment.boxes import inside
from hms_dist.canvas.augment.draws import draws_of
from hms_dist.canvas.augment.erase import CoarseDropout, RandomErasing, XYMasking
from hms_dist.canvas.augment.layout import Layout

FULL = Layout(height=640, width=1920, areas=())


def test_boxes_are_filled_and_nothing_else(rng, group, layout):
    ends = np.stack([np.sort(rng.integers(0, size + 1, (8, 3, 2))) for size in (48, 96)], axis=2)
    boxes = torch.from_numpy(ends.reshape(8, 12).astype(np.float64))
    found = CoarseDropout(fill=0.25).apply(group.images, boxes, layout)
    expected = group.images.clone()
    for row in range(8):
        for top_bottom, left_right in ends[row]:
            expected[row, 0, slice(*top_bottom), slice(*left_right)] = 0.25
    assert torch.equal(found, expected)


def test_coarse_dropout_has_exactly_five_holes_of_64_by_64(many):
    boxes = CoarseDropout().draw(many, FULL).reshape(-1, 5, 4)
    assert (boxes[..., 1] - boxes[..., 0] == 64).all()
    assert (boxes[..., 3] - boxes[..., 2] == 64).all()
    for start, last in ((boxes[..., 0], 640 - 64), (boxes[..., 2], 1920 - 64)):
        assert (start.min(), start.max()) == (0, last)
        assert stats.kstest((start.ravel() + 0.5) / (last + 1), "uniform", mode="asymp").pvalue > 1e-6
    flat = boxes[..., [0, 2]].reshape(len(boxes), -1)
    assert np.abs(np.corrcoef(flat.T) - np.eye(10)).max() < 6 / np.sqrt(len(flat))


def test_the_holes_of_a_full_picture_are_black(rng):
    draws = draws_of(np.arange(3), seed=int(rng.integers(2**32)), epoch=0)
    boxes = CoarseDropout().draw(draws, FULL)
    found = CoarseDropout().apply(torch.ones(3, 1, 640, 1920), torch.from_numpy(boxes), FULL)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    for row in range(3):
        holes = np.zeros((640, 1920), bool)
        for top, bottom, left, right in boxes[row].reshape(5, 4).astype(int):
            holes[top:bottom, left:right] = True
        assert np.array_equal(found[row, 0].numpy() == 0, holes)
        assert 64 * 64 < holes.sum() <= 5 * 64 * 64


def test_random_erasing_has_its_areas_and_shapes(many):
    wide = Layout(height=4000, width=4000, areas=())
    top, bottom, left, right = RandomErasing().draw(many, wide).T
    height, width = bottom - top, right - left
    assert (height > 0).all()
    assert (np.minimum(top, left) >= 0).all()
    assert (np.maximum(bottom, right) <= 4000).all()
    assert stats.kstest(height * width / 4000**2, stats.uniform(0.02, 0.31).cdf).pvalue > 1e-6
    spread = np.log(3.3 / 0.3)
    assert stats.kstest(np.log(height / width), stats.uniform(np.log(0.3), spread).cdf).pvalue > 1e-6


def test_random_erasing_tries_again_what_does_not_fit(many):
    """On a wide canvas many shapes are too high; like torchvision, the augmentation tries ten."""
    boxes = RandomErasing(area_share=(0.3, 0.33)).draw(many, FULL)
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    drawn = height > 0
    assert 0.99 < drawn.mean() <= 1
    assert height.max() < 640
    np.testing.assert_allclose((height * width)[drawn] / (640 * 1920), 0.315, rtol=0, atol=0.017)
    never = RandomErasing(area_share=(0.9, 1.0), aspect_ratio=(1.0, 1.0))
    top, bottom, left, right = never.draw(many, FULL).T
    assert np.array_equal(top, bottom)
    assert np.array_equal(left, right)


def test_erasing_is_torchvisions(rng, group, layout):
    draws = draws_of(group.rows, seed=int(rng.integers(2**32)), epoch=1)
    boxes = RandomErasing(fill=0.5).draw(draws, layout)
    found = RandomErasing(fill=0.5).apply(group.images, torch.from_numpy(boxes), layout)
    for row, (top, bottom, left, right) in enumerate(boxes.astype(int).tolist()):
        expected = published.erase(
            group.images[row], top, left, bottom - top, right - left, torch.full((1, bottom - top, right - left), 0.5)
        )
        assert torch.equal(found[row], expected)


def test_stripes_are_within_each_placement_along_and_across_its_time(many, layout):
    masking = XYMasking(num_time=2, time_share=(0.1, 0.3), num_frequency=1, frequency_share=(0.0, 0.5))
    boxes = masking.draw(many, layout).reshape(-1, 3, 3, 4)
    for number, area in enumerate(layout.areas):
        top, bottom, left, right = boxes[:, number].transpose(2, 0, 1)
        assert (top >= area.top).all()
        assert (bottom <= area.bottom).all()
        assert (left >= area.left).all()
        assert (right <= area.right).all()
        along, across = (bottom - top, right - left) if area.time_down else (right - left, bottom - top)
        assert (across[:, :2] == area.breadth).all()
        assert (along[:, 2] == area.length).all()
        assert along[:, :2].min() == round(0.1 * area.length)
        assert along[:, :2].max() == round(0.3 * area.length)
        assert (across[:, 2].min(), across[:, 2].max()) == (0, round(0.5 * area.breadth))
        first = (top if area.time_down else left)[:, 0] - (area.top if area.time_down else area.left)
        assert first.min() == 0
        assert (first + along[:, 0]).max() == area.length
    widths = (boxes[:, 0, 0, 1] - boxes[:, 0, 0, 0], boxes[:, 1, 0, 3] - boxes[:, 1, 0, 2])
    assert abs(np.corrcoef(*widths)[0, 1]) < 5 / np.sqrt(len(widths[0]))  # placements are independent


def test_stripes_are_blank(rng, group, layout):
    boxes = torch.from_numpy(XYMasking().draw(draws_of(group.rows, seed=int(rng.integers(2**32)), epoch=2), layout))
    found = XYMasking(fill=-1.0).apply(group.images, boxes, layout)
    where = inside(boxes, 48, 96)
    assert (found[where] == -1).all()
    assert torch.equal(found[~where], group.images[~where])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CoarseDropout(num_holes=0), "num_holes: CoarseDropout expects at least 1, found 0"),
        (lambda: CoarseDropout(num_holes=2**31), "num_holes: expected at most 1000, found 2147483648"),
        (lambda: CoarseDropout(height=0), "height: CoarseDropout expects at least 1, found 0"),
        (lambda: RandomErasing(area_share=(0.5, 1.5)), "area_share: expected [low, high] from 0 to 1, low first"),
        (lambda: RandomErasing(aspect_ratio=(0.0, 1.0)), "aspect_ratio: expected above 0, found [0.0, 1.0]"),
        (lambda: RandomErasing(aspect_ratio=(2.0, 1.0)), "aspect_ratio: expected [low, high] of at least 0"),
        (lambda: XYMasking(time_share=(0.2, 0.1)), "time_share: expected [low, high] from 0 to 1, low first"),
        (lambda: XYMasking(frequency_share=(0.2, 1.1)), "frequency_share: expected [low, high] from 0 to 1"),
        (lambda: XYMasking(num_time=-1), "num_time: expected 0 to 1000, found -1"),
        (lambda: XYMasking(num_frequency=2**31), "num_frequency: expected 0 to 1000, found 2147483648"),
        (lambda: XYMasking(num_time=0, num_frequency=0), "num_time: XYMasking expects at least one stripe"),
    ],
)
def test_bad_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert message in str(error.value)
