"""Multitaper density against numpy's transform of one frame at a time, and against what density means."""

import numpy as np
import pytest
from scipy import signal

from hms_dist.signals.multitaper import multitaper_density

DEFAULT = {
    "rate_hz": 200,
    "window_samples": 800,
    "hop_samples": 100,
    "fft_samples": 1024,
    "time_half_bandwidth": 2.0,
    "num_tapers": 3,
    "num_bins": 512,
}


@pytest.mark.parametrize(
    "options",
    [{}, {"window_samples": 301, "hop_samples": 77}, {"time_half_bandwidth": 4.0, "num_tapers": 7, "num_bins": 20}],
)
def test_equals_periodograms_averaged(rng: np.random.Generator, options: dict) -> None:
    choice = DEFAULT | options
    window, hop, fft = (choice[f"{name}_samples"] for name in ("window", "hop", "fft"))
    tapers = signal.windows.dpss(window, choice["time_half_bandwidth"], choice["num_tapers"])
    values = rng.normal(30, 50, (2, 3000))
    found = multitaper_density(values, **choice)
    assert (found.shape, found.dtype) == ((2, choice["num_bins"], (3000 - window) // hop + 1), np.float64)
    for row in range(2):
        for frame in range(found.shape[2]):
            part = values[row, frame * hop : frame * hop + window]
            spectra = [np.abs(np.fft.rfft(taper * (part - part.mean()), fft)) ** 2 for taper in tapers]
            expected = np.mean(spectra, axis=0)[: choice["num_bins"]] * 2 / 200
            np.testing.assert_allclose(found[row, :, frame], expected, atol=1e-5 * expected.max())


def test_density_times_bandwidth_is_power(rng: np.random.Generator) -> None:
    """Over 0 to 100 Hz white noise of 10 microvolt has 100 uV^2, 1 in every hertz."""
    found = multitaper_density(rng.normal(0, 10, (8, 20_000)), **DEFAULT)
    np.testing.assert_allclose(found[:, 5:-5].mean(), 1.0, rtol=0.03)
    assert found[:, 5:-5].std() < 0.65  # one taper: 1.0; three: 0.58


@pytest.mark.parametrize("scale", [0.0, 1e-200, 1e6, 1e38])
def test_extremes_stay_finite(rng: np.random.Generator, scale: float) -> None:
    values = rng.normal(0, 1, (2, 2000)) * scale
    assert np.isfinite(multitaper_density(values, **DEFAULT)).all()
