"""Blurs against scipy and torchvision, their kernels against plain loops, and the distribution of sizes."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms.v2 import functional as published

from hms_dist.canvas.augment.blur import OPENCV_KERNELS, GaussianBlur, MotionBlur, filtered, lines


def test_each_row_is_correlated_with_its_own_kernel(rng, group):
    kernels = torch.from_numpy(rng.random((8, 5, 3), np.float32))
    found = filtered(group.images, kernels)
    for row in range(8):
        expected = ndimage.correlate(group.images[row, 0].double().numpy(), kernels[row].numpy(), mode="mirror")
        np.testing.assert_allclose(found[row, 0], expected, rtol=0, atol=1e-5)


def test_gaussian_blur_without_a_deviation_takes_the_fixed_kernels(group, layout, many):
    blur = GaussianBlur()
    kernels = blur.draw(many, layout)
    sizes = (kernels > 0).sum(axis=1)
    for size, chance in ((3, 1 / 5), (5, 2 / 5), (7, 2 / 5)):
        assert (sizes == size).mean() == pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / len(sizes)))
        margin = (7 - size) // 2
        assert (kernels[sizes == size][:, margin : 7 - margin] == OPENCV_KERNELS[size]).all()
    found = blur.apply(group.images, torch.from_numpy(kernels[:8]), layout)
    for row in range(8):
        taps = OPENCV_KERNELS[int(sizes[row])]
        expected = ndimage.correlate(group.images[row, 0].double().numpy(), np.outer(taps, taps), mode="mirror")
        np.testing.assert_allclose(found[row, 0], expected, rtol=0, atol=1e-6)


def test_the_fixed_kernels_are_close_to_gaussians():
    """OpenCV's own rule for the deviation of a size, from which its fixed kernels are rounded."""
    for size, taps in OPENCV_KERNELS.items():
        assert sum(map(Fraction, taps)) == 1
        distance = np.arange(size) - size // 2
        weights = np.exp(-0.5 * (distance / (0.3 * ((size - 1) * 0.5 - 1) + 0.8)) ** 2)
        np.testing.assert_allclose(taps, weights / weights.sum(), rtol=0, atol=0.03)


def test_gaussian_blur_with_a_deviation_is_torchvisions(group, layout, many):
    blur = GaussianBlur(size=(3, 9), deviation=(0.1, 2.0))
    kernels = blur.draw(many, layout)
    assert kernels.shape[1] == 9
    np.testing.assert_allclose(kernels.sum(axis=1), 1, rtol=0, atol=1e-12)
    narrow = GaussianBlur(size=(5, 5), deviation=(1.3, 1.3))
    parameters = torch.from_numpy(narrow.draw(many, layout)[:8])
    expected = published.gaussian_blur(group.images, [5, 5], [1.3, 1.3])
    torch.testing.assert_close(narrow.apply(group.images, parameters, layout), expected, rtol=0, atol=1e-6)


def test_motion_kernels_are_lines_of_a_uniform_odd_size(many, layout):
    kernels = MotionBlur().draw(many, layout).reshape(-1, 7, 7)
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1, rtol=0, atol=1e-12)
    assert all(len(np.unique(kernel[kernel > 0])) == 1 for kernel in kernels[:500])
    lit = (kernels > 0).sum(axis=(1, 2))
    for length, chance in chances_of_lengths().items():
        assert (lit == length).mean() == pytest.approx(chance, abs=5 * np.sqrt(chance * (1 - chance) / len(lit)))


def chances_of_lengths():
    """Expected distribution of the number of pixels of a line: size 3, 5 or 7; two columns; two rows, which differ if
    the columns do not."""
    chances = dict.fromkeys(range(2, 8), 0.0)
    for size in (3, 5, 7):
        for x in product(range(size), repeat=2):
            rows = [y for y in product(range(size), repeat=2) if x[0] != x[1] or y[0] != y[1]]
            for y in rows:
                chances[max(abs(x[0] - x[1]), abs(y[0] - y[1])) + 1] += 1 / 3 / size**2 / len(rows)
    return chances


def test_lines_are_bresenhams():
    """Against Bresenham's integer algorithm, for all pairs of pixels of a 7 x 7 kernel."""
    grid = np.arange(7**4)
    x = np.stack([grid % 7, grid // 7 % 7], axis=1).astype(float)
    y = np.stack([grid // 49 % 7, grid // 343], axis=1).astype(float)
    found = lines(x, y, 7)
    for number in range(7**4):
        assert set(zip(*np.nonzero(found[number]), strict=True)) == walked(x[number], y[number])


def walked(x, y):
    """Pixels (row, column) of a line, from its left end; at a tie the row or column does not change."""
    (x0, y0), (x1, y1) = sorted(zip(x.astype(int), y.astype(int), strict=True), key=lambda point: point[0])
    run, rise = x1 - x0, y1 - y0
    step_y = 1 if rise > 0 else -1
    pixels, column, row, error = {(y0, x0)}, x0, y0, 0
    for _ in range(max(run, abs(rise))):
        if run >= abs(rise):
            column, error = column + 1, error + 2 * abs(rise)
            if error > run:
                row, error = row + step_y, error - 2 * run
        else:
            row, error = row + step_y, error + 2 * run
            if error > abs(rise):
                column, error = column + 1, error - 2 * abs(rise)
        pixels.add((row, column))
    return pixels


def test_motion_blur_correlates_with_its_line(group, layout, many):
    blur = MotionBlur(size=(3, 7))
    kernels = blur.draw(many, layout)[:8]
    found = blur.apply(group.images, torch.from_numpy(kernels), layout)
    for row in range(8):
        kernel = kernels[row].reshape(7, 7)
        expected = ndimage.correlate(group.images[row, 0].double().numpy(), kernel, mode="mirror")
        np.testing.assert_allclose(found[row, 0], expected, rtol=0, atol=1e-6)


def test_deviations_are_uniform(many, layout):
    kernels = GaussianBlur(size=(3, 3), deviation=(0.5, 2.0)).draw(many, layout)
    deviation = np.sqrt(-0.5 / np.log(kernels[:, 0] / kernels[:, 1]))
    assert stats.kstest(deviation, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-6


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianBlur(size=(2, 7)), "size: GaussianBlur expects two odd numbers from 3"),
        (lambda: MotionBlur(size=(7, 3)), "size: MotionBlur expects two odd numbers from 3"),
        (lambda: GaussianBlur(size=(3, 9)), "deviation: a size above 7 needs one"),
        (lambda: GaussianBlur(deviation=(0.0, 1.0)), "deviation: expected [low, high] above 0"),
    ],
)
def test_bad_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert message in str(error.value)
