"""Crops and cut-and-paste: against plain loops, and what they must keep."""

import numpy as np
import pytest
import torch
from hms_dist.model.draws import group_uniform

from hms_dist.model.window_mixing import crop_offsets, cropped, donors, offset_range, pasted


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


def test_donors_are_other_rows_as_often_as_asked(rng: np.random.Generator) -> None:
    drawn = torch.stack([donors(rng.random(6), rng.random(6), 0.3) for _ in range(3000)])
    own = drawn == torch.arange(6)
    assert abs(float(own.double().mean()) - 0.7) < 0.02
    others = drawn[:, 0][~own[:, 0]]
    assert set(others.tolist()) == {1, 2, 3, 4, 5}
    assert donors(rng.random(6), rng.random(6), 0.0).tolist() == list(range(6))
    assert donors(np.zeros(1), np.zeros(1), 1.0).tolist() == [0]


@pytest.mark.usefixtures("torch_rng")
def test_the_window_comes_from_the_donor_as_it_was_and_the_rest_stays() -> None:
    images = torch.rand(4, 1, 5, 30)
    donor = torch.tensor([1, 2, 2, 0])
    expected = images.clone()
    for row, other in enumerate(donor):
        expected[row, :, :, 10:21] = images[other, :, :, 10:21]
    assert torch.equal(pasted(images, donor, (10.6, 20.2)), expected)


def test_draws_are_keyed_by_the_group_and_the_stream() -> None:
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]
    draws = [group_uniform(key, stream, 8) for key in keys for stream in (1, 2)]
    assert len({tuple(draw) for draw in draws}) == len(draws)
    np.testing.assert_array_equal(group_uniform(keys[3], 1, 8), group_uniform(keys[3], 1, 12)[:8])
