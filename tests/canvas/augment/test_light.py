"""Brightness, contrast and noise against numpy."""

import numpy as np
import pytest
import torch
from scipy import stats

from hms_dist.canvas.augment.light import BrightnessContrast, GaussNoise
from hms_dist.canvas.augment.pixel_noise import normal_noise


@pytest.mark.parametrize("clip", [(0.0, 1.0), None, (-0.5, 0.5)])
def test_brightness_and_contrast(group, layout, clip):
    parameters = torch.tensor([[1.1, -0.1], [0.9, 0.1]], dtype=torch.float64)
    found = BrightnessContrast(clip=clip).apply(group.images[:2], parameters, layout).numpy()
    for row in range(2):
        expected = group.images[row].double().numpy() * parameters[row, 0].item() + parameters[row, 1].item()
        expected = expected if clip is None else np.clip(expected, *clip)
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)


def test_brightness_and_contrast_are_uniform_within_their_limits(many, layout):
    factor, offset = BrightnessContrast(brightness=0.05, contrast=0.2).draw(many, layout).T
    for values, middle, limit in ((factor, 1.0, 0.2), (offset, 0.0, 0.05)):
        assert stats.kstest(values, stats.uniform(middle - limit, 2 * limit).cdf).pvalue > 1e-6
    assert abs(np.corrcoef(factor, offset)[0, 1]) < 5 / np.sqrt(len(factor))


def test_noise_has_its_variance_and_is_cut(many, layout):
    variance = GaussNoise().draw(many, layout)[:, 0] ** 2
    assert stats.kstest(variance, stats.uniform(0.1, 0.2).cdf).pvalue > 1e-6
    images = torch.full((2, 1, 48, 96), 0.5)
    parameters = torch.tensor([[0.4, 5, -6, 7], [0.0, 1, 2, 3]], dtype=torch.float64)
    noise = normal_noise(parameters[:, 1:].int(), 48, 96)
    found = GaussNoise().apply(images, parameters, layout)
    assert torch.equal(found[0], (0.5 + 0.4 * noise[0]).clamp(0, 1))
    assert torch.equal(found[1], images[1])
    assert found.min() == 0
    assert found.max() == 1
    uncut = GaussNoise(clip=None).apply(images, parameters, layout)
    assert uncut[0].std().item() == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BrightnessContrast(brightness=-0.1), "brightness: expected 0 to 1, found -0.1"),
        (lambda: BrightnessContrast(contrast=1.5), "contrast: expected 0 to 1, found 1.5"),
        (lambda: BrightnessContrast(clip=(1, 0)), "clip: expected [low, high]"),
        (lambda: BrightnessContrast(probability=1.5), "probability: BrightnessContrast expects 0 to 1, found 1.5"),
        (lambda: GaussNoise(variance=(0.3, 0.1)), "variance: expected [low, high] of at least 0, low first"),
        (lambda: GaussNoise(variance=(-1, 0.1)), "variance: expected [low, high] of at least 0, low first"),
    ],
)
def test_bad_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011
        make()
    assert message in str(error.value)
