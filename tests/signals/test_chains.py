"""The signals of the four chains: each step against the same step done by hand, and what comes first."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.signal_format import CHANNELS
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.denoise import WaveletDenoise, denoise
from hms_dist.signals.filters import FilterChain, apply
from hms_dist.signals.gaps import fill_gaps
from hms_dist.signals.montage import CHAINS, differences, swap_sides


@pytest.fixture
def eeg(rng: np.random.Generator) -> np.ndarray:
    values = np.cumsum(rng.normal(0, 3, (3000, 20)), axis=0)
    values[1000:1100, CHANNELS.index("F4")] = np.nan
    return values


def test_by_default_differences_with_the_mean_in_gaps(eeg: np.ndarray) -> None:
    found = ChainSignals().of_recording(eeg)
    assert REGIONS == ("LL", "LP", "RL", "RP")
    for region, chain in zip(REGIONS, found, strict=True):
        np.testing.assert_array_equal(chain, differences(eeg, CHAINS[region]))
    part = found[..., 900:1500]
    np.testing.assert_array_equal(ChainSignals().ready(part), fill_gaps(part, "mean"))


def test_filters_run_over_the_whole_recording_and_denoising_over_the_part(eeg: np.ndarray) -> None:
    filters, wavelet = FilterChain(band_pass_hz=(0.5, 40)), WaveletDenoise(threshold="soft")
    signals = ChainSignals(gaps="interpolate", filters=filters, denoise=wavelet)
    found = signals.ready(signals.of_recording(eeg)[..., 500:2500])
    for region, chain in zip(REGIONS, found, strict=True):
        whole = apply(filters, fill_gaps(differences(eeg, CHAINS[region]), "interpolate"))
        np.testing.assert_allclose(chain, denoise(wavelet, whole[:, 500:2500]), atol=1e-9)


@pytest.mark.parametrize(("montage", "count"), [("bipolar", 4), ("common_average", 5), ("referential", 5)])
def test_exchanging_electrodes_exchanges_chains_to_the_bit(eeg: np.ndarray, montage: str, count: int) -> None:
    signals = ChainSignals(montage=montage, filters=FilterChain())
    found = signals.of_recording(eeg)
    assert found.shape == (4, count, 3000)
    np.testing.assert_array_equal(signals.of_recording(swap_sides(eeg)), found[[2, 3, 0, 1]])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.0, 0.1, 0.999, 1.0]),
    scale=st.sampled_from([0.0, 1.0, 1e6, 3e37]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    options=st.fixed_dictionaries(
        {
            "montage": st.sampled_from(["bipolar", "common_average", "referential"]),
            "gaps": st.sampled_from(["zero", "mean", "interpolate"]),
            "filters": st.sampled_from([None, FilterChain(), FilterChain(zero_phase=False)]),
            "denoise": st.sampled_from([None, WaveletDenoise(), WaveletDenoise(wavelet="db1", threshold="soft")]),
        }
    ),
)
def test_any_recording_gives_finite_signals(seed: int, share: float, scale: float, bad: float, options: dict) -> None:
    rng = np.random.default_rng(seed)
    eeg = (rng.normal(0, 1, (1000, 20)) * scale).astype(np.float32)
    eeg[rng.random(eeg.shape) < share] = bad
    signals = ChainSignals(**options)
    found = signals.ready(signals.of_recording(eeg)[..., 200:900])
    assert found.shape[-1] == 700
    assert np.isfinite(found).all()
