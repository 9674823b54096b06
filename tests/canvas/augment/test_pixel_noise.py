"""Pixel noise: the hash bitwise equal to numpy's, and the distribution of the noise."""

import numpy as np
import pytest
import torch
from scipy import stats

from hms_dist.canvas.augment.pixel_noise import mixed, normal_noise


def numpy_mixed(words):
    words = words.astype(np.uint32)
    words ^= words >> np.uint32(16)
    words *= np.uint32(0x7FEB352D)
    words ^= words >> np.uint32(15)
    words *= np.uint32(0x846CA68B)
    return words ^ (words >> np.uint32(16))


def numpy_noise(words, height, width):
    pairs = np.arange((height * width + 1) // 2, dtype=np.uint32)
    first, second, third = words.astype(np.int32).view(np.uint32)
    hashed = numpy_mixed(pairs ^ first)
    shares = [(numpy_mixed(hashed ^ key) >> np.uint32(8)).astype(np.float64) for key in (second, third)]
    radius = np.sqrt(-2 * np.log((shares[0] + 1) / 2**24))
    angle = 2 * np.pi * shares[1] / 2**24
    noise = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
    return noise[: height * width].reshape(height, width)


@pytest.fixture
def words(rng):
    return torch.from_numpy(rng.integers(-(2**31), 2**31, (3, 3)).astype(np.int32))


def test_the_hash_is_exact_and_a_bijection(rng):
    words = rng.integers(-(2**31), 2**31, 100_000).astype(np.int32)
    words = np.unique(np.append(words, [0, -1, 2**31 - 1, -(2**31)]).astype(np.int32))
    found = mixed(torch.from_numpy(words)).numpy()
    assert np.array_equal(found.view(np.uint32), numpy_mixed(words.view(np.uint32)))
    assert len(np.unique(found)) == len(words)


@pytest.mark.parametrize(("height", "width"), [(48, 96), (5, 7), (1, 1)])
def test_noise_is_that_of_float64(words, height, width):
    found = normal_noise(words, height, width)
    assert found.shape == (3, 1, height, width)
    for row, key in enumerate(words.numpy()):
        np.testing.assert_allclose(found[row, 0].numpy(), numpy_noise(key, height, width), rtol=0, atol=1e-5)


def test_noise_is_normal_and_white(words):
    noise = normal_noise(words, 300, 400).numpy()[:, 0]
    for picture in noise:
        assert stats.kstest(picture.ravel(), "norm").pvalue > 1e-6
        for shifted, kept in ((picture[1:], picture[:-1]), (picture[:, 1:], picture[:, :-1])):
            assert abs(np.corrcoef(shifted.ravel(), kept.ravel())[0, 1]) < 5 / np.sqrt(picture.size)
        assert abs(np.corrcoef(picture[:150].ravel(), picture[150:].ravel())[0, 1]) < 5 / np.sqrt(picture.size / 2)
    assert np.abs(np.corrcoef(noise.reshape(3, -1)) - np.eye(3)).max() < 5 / np.sqrt(noise[0].size)
