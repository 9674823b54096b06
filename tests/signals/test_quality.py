"""The channel-quality report against counting sample by sample."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_dist.core.signal_format import CHANNELS
from hms_dist.signals.quality import channel_quality


@pytest.fixture
def clean(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(0, 30, (10_000, 20)).astype(np.float32)


def test_a_good_recording_has_an_empty_report(clean: np.ndarray) -> None:
    assert channel_quality(clean) == {"gap": {}, "flat": {}, "clipped": {}}
    assert channel_quality(clean + 5000) == {"gap": {}, "flat": {}, "clipped": {}}  # an offset is not a fault


def test_each_fault_is_found_where_it_is(clean: np.ndarray) -> None:
    eeg = clean
    eeg[:250, CHANNELS.index("P3")] = np.nan
    eeg[3, CHANNELS.index("P3")] = np.inf
    eeg[1000:1600, CHANNELS.index("T3")] = 12.5 + 0.4 * np.sin(np.arange(600))
    eeg[50, CHANNELS.index("O1")] = -3000
    eeg[:, CHANNELS.index("Cz")] = np.nan
    eeg[:, CHANNELS.index("EKG")] = 7
    assert channel_quality(eeg) == {
        "gap": {"P3": 0.025, "Cz": 1.0},
        "flat": {"T3": 0.06, "EKG": 1.0},
        "clipped": {"O1": 0.0001},
    }


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.sampled_from([0.0, 0.2, 1.0, 500.0, 1e6, 1e37]),
    gaps=st.sampled_from([0.0, 0.1, 0.99, 1.0]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
)
def test_equals_counting(seed: int, scale: float, gaps: float, bad: float) -> None:
    rng = np.random.default_rng(seed)
    eeg = (rng.normal(0, 1, (1000, 20)) * scale).astype(np.float32)
    eeg[rng.random(eeg.shape) < gaps] = bad
    found = channel_quality(eeg)
    for channel, name in enumerate(CHANNELS):
        values = eeg[:, channel].astype(np.float64)
        valid = np.isfinite(values)
        mean = values[valid].mean() if valid.any() else 0.0
        seconds = [second[np.isfinite(second)] for second in values.reshape(-1, 200)]
        flat = sum(len(second) for second in seconds if len(second) >= 2 and np.ptp(second) <= 1)
        assert found["gap"].get(name, 0) == (~valid).mean()
        assert found["flat"].get(name, 0) == flat / 1000
        assert found["clipped"].get(name, 0) == (np.abs(values[valid] - mean) >= 1024).sum() / 1000
        assert all(share > 0 for fault in found.values() for share in fault.values())
