"""Crops and cut-and-paste against plain loops, and their invariants."""

import numpy as np
import pytest
import torch

from hms_dist.canvas.augment import GroupedRows
from hms_dist.model.sliding_window import SlidingWindowConfig
from hms_dist.model.window_mixing import crop_offsets, cropped, offset_range, pasted
from hms_dist.train.task import AnnotatedWindow


def test_every_crop_holds_the_window_and_all_places_are_used(rng: np.random.Generator) -> None:
    window, width, crop_width = (33.4, 61.2), 128, 64
    offsets = crop_offsets(rng.random(4000), window, width, crop_width)
    assert set(offsets.tolist()) == set(range(34))
    assert offset_range(window, width, 128) == (0, 0)
    assert offset_range((70.0, 100.5), width, crop_width) == (37, 64)


def test_a_window_wider_than_the_crop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a crop of 64 columns cannot hold columns 10\.0 to 74\.5"):
        offset_range((10.0, 74.5), 128, 64)


@pytest.mark.usefixtures("torch_rng")
def test_crops_are_columns_of_the_picture() -> None:
    images = torch.rand(5, 1, 7, 40)
    offsets = torch.tensor([0, 3, 10, 24, 11])
    expected = torch.stack([image[..., offset : offset + 16] for image, offset in zip(images, offsets, strict=True)])
    assert torch.equal(cropped(images, offsets, 16), expected)


def test_windows_come_from_other_rows_of_the_group_as_often_as_asked(rng: np.random.Generator) -> None:
    num_groups, size, width = 800, 6, 32
    num_rows = num_groups * size
    numbers = torch.arange(num_rows, dtype=torch.float64)
    images = numbers.view(-1, 1, 1, 1).expand(-1, 1, 1, width)
    rows = GroupedRows(np.arange(num_rows), np.arange(num_rows), size, num_rows)

    def donors(probability: float, rows: GroupedRows) -> torch.Tensor:
        config = SlidingWindowConfig(paste_probability=probability)
        task = AnnotatedWindow(config=config, width=width, window=(8.0, 16.0))
        mixed, targets, _ = task.mixed(images, numbers[:, None], rows, (int(rng.integers(2**32)), 0, 0))
        assert torch.equal(targets[:, 0], mixed[:, 0, 0, 8])  # a pasted window brings its label
        return targets[:, 0].long()

    places = torch.arange(num_rows)
    drawn = donors(0.3, rows)
    own = drawn == places
    share = float(own.double().mean())
    assert abs(share - 0.7) < 6 * (0.3 * 0.7 / num_rows) ** 0.5
    assert torch.equal(drawn // size, places // size)
    counts = torch.bincount((drawn - places)[~own] % size, minlength=size)
    assert counts[0] == 0
    mean = (num_rows - int(own.sum())) / (size - 1)
    assert ((counts[1:] - mean).abs() < 6 * (mean * (1 - 1 / (size - 1))) ** 0.5).all()
    assert torch.equal(donors(0.0, rows), places)
    assert torch.equal(donors(1.0, GroupedRows(rows.rows, rows.places, 1, num_rows)), places)


@pytest.mark.usefixtures("torch_rng")
def test_the_window_comes_from_the_donor_as_it_was_and_the_rest_stays() -> None:
    images = torch.rand(4, 1, 5, 30)
    donor = torch.tensor([1, 2, 2, 0])
    expected, before = images.clone(), images.clone()
    for row, other in enumerate(donor):
        expected[row, :, :, 10:21] = images[other, :, :, 10:21]
    assert torch.equal(pasted(images, images[donor], (10.6, 20.2)), expected)
    assert torch.equal(images, before)
