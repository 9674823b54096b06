"""The shift along time: the same seconds in every placement, reflected ends, other pixels unchanged."""

import numpy as np
import pytest
import torch
from scipy import stats

from hms_dist.canvas.augment.layout import Layout, PlacedArea
from hms_dist.canvas.augment.shift import TimeShift


def shifted(picture, pixels):
    """Shift columns to the right by `pixels` with reflection, by padding."""
    if pixels == 0:
        return picture
    padded = np.pad(picture, ((0, 0), (abs(pixels), abs(pixels))), mode="reflect")
    return padded[:, abs(pixels) - pixels :][:, : picture.shape[1]]


@pytest.mark.parametrize("pixels", [0, 1, -1, 7, -39, 39, 100, -250])
def test_each_placement_moves_along_its_time(group, layout, pixels):
    amounts = torch.tensor([[pixels, -pixels, 2]] * 8, dtype=torch.float64)
    found = TimeShift().apply(group.images, amounts, layout)
    expected = group.images.clone()
    for area, amount in zip(layout.areas, (pixels, -pixels, 2), strict=True):
        for row in range(8):
            part = expected[row, 0, area.top : area.bottom, area.left : area.right]
            moved = shifted(part.T.numpy(), amount).T if area.time_down else shifted(part.numpy(), amount)
            part.copy_(torch.from_numpy(moved.copy()))
    assert torch.equal(found, expected)


def test_the_seconds_are_the_same_everywhere(many, layout):
    """The areas show 50 s in 40 rows, 20 s in 80 columns, and 20 of 40 columns of 50 s in 80 columns."""
    spans = [area.span_s for area in layout.areas]
    assert spans == pytest.approx([50, 20, 25])
    pixels = TimeShift(max_s=4).draw(many, layout)
    seconds = pixels / np.array([40 / 50, 80 / 20, 80 / 25])
    assert np.abs(seconds[:, [1, 2]] - seconds[:, [0]]).max() <= 0.5 * 50 / 40 + 0.5 * 25 / 80 + 1e-9
    assert (pixels[:, 1].min(), pixels[:, 1].max()) == (-16, 16)
    counts = np.bincount((pixels[:, 1] + 16).astype(int))
    assert stats.chisquare(counts[1:-1]).pvalue > 1e-6  # the two ends are half as wide


def test_a_placement_without_times_is_not_shifted(group, many):
    area = PlacedArea(top=0, bottom=48, left=0, right=96, time_down=False, span_s=None)
    layout = Layout(height=48, width=96, areas=(area,))
    pixels = TimeShift().draw(many, layout)
    assert not pixels.any()
    assert torch.equal(TimeShift().apply(group.images, torch.from_numpy(pixels[:8]), layout), group.images)


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_placements_can_be_shifted(layout, length):
    area = PlacedArea(top=0, bottom=1, left=0, right=length, time_down=False, span_s=1.0)
    images = torch.arange(float(length)).view(1, 1, 1, length)
    found = TimeShift().apply(
        images, torch.tensor([[3.0]], dtype=torch.float64), Layout(height=1, width=length, areas=(area,))
    )
    assert found.flatten().tolist() == ([0.0] if length == 1 else [1.0, 0.0])


def test_a_shift_of_nothing_is_refused():
    with pytest.raises(ValueError, match="max_s: expected above 0, found 0"):
        TimeShift(max_s=0)
