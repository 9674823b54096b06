"""Common properties of the wavelet and PCEN panels: finite for any input, exact under the flip, spikes in place."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.pcen import Pcen
from hms_dist.panels.scalogram import Scalogram
from hms_dist.panels.wavelet_statistics import WaveletStatistics
from hms_dist.shards.schema import mirrored
from hms_dist.signals.chains import ChainSignals
from hms_dist.signals.filters import FilterChain
from hms_dist.signals.montage import swap_sides

PANELS = {
    "wavelet_statistics": WaveletStatistics(),
    "wavelet_statistics_whole": WaveletStatistics(window_samples=10_000, num_windows=1),
    "scalogram": Scalogram(),
    "scalogram_filtered": Scalogram(signals=ChainSignals(filters=FilterChain())),
    "pcen": Pcen(),
    "pcen_common_average": Pcen(signals=ChainSignals(montage="common_average")),
}
every_panel = pytest.mark.parametrize("name", PANELS)


@every_panel
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    value=st.sampled_from([0.0, 1e-30, -37.5, 1e6, 3e38, np.nan, np.inf]),
    noise_uv=st.sampled_from([0.0, 1e-3, 10.0, 1e6, 1e37]),
    gap_share=st.sampled_from([0.0, 0.1, 0.99]),
    dead=st.sets(st.integers(0, 19)),
    extra_samples=st.sampled_from([0, 1, 12_345]),
)
def test_any_input_gives_a_finite_picture(
    draw, name: str, seed: int, value: float, noise_uv: float, gap_share: float, dead: set[int], extra_samples: int
) -> None:
    rng = np.random.default_rng(seed)
    shape = (10_000 + extra_samples, 20)
    with np.errstate(over="ignore"):
        eeg = (value + noise_uv * rng.normal(size=shape)).astype(np.float32)
    eeg[rng.random(shape) < gap_share] = np.nan
    eeg[:, sorted(dead)] = rng.choice([0.0, 5.0, np.nan])
    assert np.isfinite(draw(PANELS[name], eeg, extra_samples)).all()


@every_panel
def test_silence_is_dark(draw, name: str) -> None:
    for value in (0.0, 12.5, np.nan):
        assert (draw(PANELS[name], np.full((10_000, 20), value)) == 0).all()


@every_panel
def test_flipping_the_electrodes_exchanges_the_names(draw, noise, name: str) -> None:
    """The flip of the picture is its first axis in the order of the mirrored names."""
    eeg = noise()
    names = PANELS[name].spec.regions
    order = [names.index(opposite) for opposite in mirrored(names)]
    assert order != sorted(order)
    np.testing.assert_array_equal(draw(PANELS[name], swap_sides(eeg)), draw(PANELS[name], eeg)[order])


@pytest.mark.parametrize("name", [name for name in PANELS if not name.endswith("whole")])
def test_a_spike_at_25_s_lights_the_right_column(draw, rng: np.random.Generator, name: str) -> None:
    """Where the fastest rows change is, on average, where the spike is; PCEN's memory only follows it."""
    spec = PANELS[name].spec
    eeg = rng.normal(0, 1, (10_000, 20))
    spiked = eeg.copy()
    spiked[5000, CHANNELS.index("T3")] += 500
    before, after = (draw(PANELS[name], values)[:2, -4:].astype(float) for values in (eeg, spiked))
    brightness = np.abs(after).sum(axis=(0, 1)) - np.abs(before).sum(axis=(0, 1))
    first_s, last_s = spec.columns_s
    lit = np.flatnonzero(brightness > brightness.max() / 2)
    centre_s = first_s + lit.mean() * (last_s - first_s) / (spec.shape[2] - 1)
    assert abs(centre_s - 25) < 0.2
    assert np.ptp(lit) < len(brightness) / 20
