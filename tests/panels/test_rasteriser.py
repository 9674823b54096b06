"""The rasteriser against the plotting library it stands for, pixel for pixel."""

import numpy as np
import pytest
from justpyplot.justpyplot import vectorized_lines_with_thickness

from hms_dist.panels.rasteriser import draw_traces


def plotted(levels: np.ndarray, band_rows: int, width: int) -> np.ndarray:
    """`draw_traces` by justpyplot: each trace drawn on a colour canvas of its own, and their union."""
    num_traces, num_samples = levels.shape
    image = np.zeros((num_traces * band_rows, width), bool)
    columns = np.arange(num_samples) * (width - 1) // num_samples
    for trace, level in enumerate(levels):
        part = image[max(trace * band_rows - band_rows // 2, 0) : (trace + 1) * band_rows + band_rows // 2, :-1]
        rows = (-level * len(part)).astype(int) + len(part)
        canvas = np.zeros((*part.shape, 3), np.uint8)
        vectorized_lines_with_thickness(rows[:-1], columns[:-1], rows[1:], columns[1:], canvas, 1, (255, 255, 255))
        part |= canvas[..., 0] > 0
    return image


def walk(rng: np.random.Generator, num_samples: int, step: float) -> np.ndarray:
    return np.clip(0.5 + np.cumsum(rng.normal(0, step, (4, num_samples)), axis=1), 0, 1)


@pytest.mark.parametrize("step", [0.0, 0.001, 0.02, 0.3])
def test_equals_justpyplot(rng: np.random.Generator, step: float) -> None:
    for _ in range(6):
        levels = walk(rng, 800, step)
        levels[:, 0], levels[:, -1] = 0, 1
        np.testing.assert_array_equal(draw_traces(levels, 32, 320), plotted(levels, 32, 320))


def test_equals_justpyplot_where_every_jump_leaves_its_column(rng: np.random.Generator) -> None:
    """As many samples as columns, and jumps of a few sizes: many are as long as the longest."""
    for _ in range(20):
        levels = rng.choice(rng.random(3), (3, 199))
        np.testing.assert_array_equal(draw_traces(levels, 32, 200), plotted(levels, 32, 200))


def test_last_column_stays_empty_and_crossing_traces_both_show() -> None:
    levels = np.stack((np.zeros(400), np.ones(400)))
    image = draw_traces(levels, 32, 201)
    assert not image[:, -1].any()
    assert image[47, :-1].all()  # bottom of the upper trace's rows, the last of 48
    assert image[16, :-1].all()  # top of the lower trace's, which begin half a band higher
    assert image.sum() == 2 * 200


def test_bad_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="levels: 9 samples, expected at least 19"):
        draw_traces(np.zeros((2, 9)), 32, 20)
    for wrong in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="levels: expected 0 to 1"):
            draw_traces(np.full((2, 40), wrong), 32, 20)
