"""The steps of a placement against plain numpy."""

import numpy as np
import torch

from hms_dist.canvas.arrange import natural_order, resized, unpack_bits
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram


def test_resizing_against_numpy(rng: np.random.Generator) -> None:
    """Bilinear: pixel centres at halves, edges repeated. Area: plain block means."""
    pictures = rng.normal(size=(2, 30, 12)).astype(np.float32)

    def weights(old: int, new: int) -> np.ndarray:
        position = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(old)))

    for height, width in ((32, 40), (10, 5), (30, 12)):
        ours = resized(torch.from_numpy(pictures), height, width, "bilinear").numpy()
        np.testing.assert_allclose(ours, weights(30, height) @ pictures @ weights(12, width).T, atol=1e-5)
    mean = pictures.reshape(2, 10, 3, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(resized(torch.from_numpy(pictures), 10, 4, "area").numpy(), mean, atol=1e-6)


def test_bits_are_unpacked_as_numpy_packs_them(rng: np.random.Generator) -> None:
    plane = rng.random((3, 5, 48)) < 0.5
    np.testing.assert_array_equal(unpack_bits(torch.from_numpy(np.packbits(plane, axis=-1))).numpy(), plane)


def test_natural_sorting_of_frequencies() -> None:
    rows_hz = KaggleSpectrogram().spec.rows_hz
    names = [f"{rows_hz[index]:g}" for index in natural_order(rows_hz)]
    assert names[59:64] == ["12.3", "12.5", "12.7", "12.11", "12.89"]
    assert names[names.index("16.02") :][:6] == ["16.02", "16.6", "16.8", "16.21", "16.41", "16.99"]
    assert sorted(natural_order(rows_hz)) == list(range(100))
    moved = [hz for hz, index in zip(rows_hz, natural_order(rows_hz), strict=True) if hz != rows_hz[index]]
    assert {int(hz) for hz in moved} == {12, 16}
