"""The mel filter bank against librosa's."""

import librosa
import numpy as np
import pytest

from hms_dist.signals.mel import bins_of_rows, edges_hz, filter_bank, hz_to_mel, mel_rows, mel_to_hz


@pytest.mark.parametrize(
    ("rate_hz", "fft_samples", "num_mels", "min_hz", "max_hz"),
    [(200, 1000, 128, 0, 20), (200, 1024, 128, 0, 20), (200, 512, 32, 0.5, 30), (16_000, 2048, 80, 100, 8000)],
)
def test_equals_librosa(rate_hz: float, fft_samples: int, num_mels: int, min_hz: float, max_hz: float) -> None:
    weights = filter_bank(rate_hz=rate_hz, fft_samples=fft_samples, num_mels=num_mels, min_hz=min_hz, max_hz=max_hz)
    expected = librosa.filters.mel(
        sr=rate_hz, n_fft=fft_samples, n_mels=num_mels, fmin=min_hz, fmax=max_hz, dtype=np.float64
    )
    np.testing.assert_allclose(weights, expected[:, : weights.shape[1]], atol=1e-12)
    np.testing.assert_allclose(expected[:, weights.shape[1] :], 0, atol=1e-12)  # bins left out weigh nothing


def test_scale_is_inverted() -> None:
    hz = np.geomspace(0.1, 8000, 100)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz)), hz, rtol=1e-12)
    np.testing.assert_allclose(hz_to_mel(hz), librosa.hz_to_mel(hz), rtol=1e-12)


def test_corners_rise_from_end_to_end() -> None:
    corners = edges_hz(128, 0.5, 20)
    np.testing.assert_allclose(corners[[0, -1]], [0.5, 20])
    assert (np.diff(corners) > 0).all()


@pytest.mark.parametrize(("num_mels", "max_hz"), [(128, 20), (32, 50), (3, 100)])
def test_rows_are_the_product_with_the_weights(num_mels, max_hz, rng) -> None:
    weights = filter_bank(rate_hz=200, fft_samples=1000, num_mels=num_mels, min_hz=0, max_hz=max_hz).astype(np.float32)
    power = rng.gamma(0.3, size=(weights.shape[1], 57)).astype(np.float32)
    bins = bins_of_rows(weights)
    np.testing.assert_allclose(mel_rows(weights, bins, power), weights.astype(np.float64) @ power, rtol=1e-5)
    outside = np.arange(weights.shape[1])[None, :]
    assert (weights[(outside < bins[:, :1]) | (outside >= bins[:, 1:])] == 0).all()


def test_a_row_without_weights_is_zero() -> None:
    weights = np.array([[0, 0, 0], [0, 2, 0]], np.float32)
    power = np.ones((3, 2), np.float32)
    assert mel_rows(weights, bins_of_rows(weights), power).tolist() == [[0, 0], [2, 2]]
