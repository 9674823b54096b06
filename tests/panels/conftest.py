"""Drawing a panel from arrays, noise to draw, and the chains' signals one by one: what the tests of panels share."""

from collections.abc import Callable

import numpy as np
import pytest

from hms_dist.core.signal_format import CHANNELS
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.signals.montage import CHAINS


def recorded(eeg: np.ndarray) -> Recording:
    return Recording(
        eeg_id=1,
        eeg=eeg.astype(np.float32),
        spectrogram_id=2,
        spectrogram=np.zeros((0, 4, 100), np.float32),
        spectrogram_time_s=np.zeros(0),
    )


@pytest.fixture(scope="session")
def draw() -> Callable[..., np.ndarray]:
    """Draws a panel of an EEG [samples, 20] from sample `start` on; shape and dtype are those of its specification."""

    def drawn(panel: Panel, eeg: np.ndarray, start: int = 0) -> np.ndarray:
        recording = recorded(eeg)
        window = Window(recording=recording, start=start, spectrogram_offset_s=0.0)
        found = panel.draw(panel.prepare(recording), window)
        assert found.shape == panel.spec.shape
        assert found.dtype == (bool if panel.spec.dtype == "bit" else panel.spec.stored_dtype)
        return found

    return drawn


@pytest.fixture
def noise(rng: np.random.Generator) -> Callable[..., np.ndarray]:
    """Draws an EEG of random walks and white noise with gaps: T5 is not recorded, F4 stops for 2.5 s, and a share
    `missing` of the samples is lost in all channels."""

    def drawn(num_samples: int = 10_000, *, missing: float = 0.001) -> np.ndarray:
        eeg = np.cumsum(rng.normal(0, 3, (num_samples, 20)), axis=0) + rng.normal(0, 10, (num_samples, 20))
        eeg[:, CHANNELS.index("T5")] = np.nan
        eeg[rng.integers(num_samples - 500) :, CHANNELS.index("F4")][:500] = np.nan
        eeg[rng.random(num_samples) < missing] = np.nan
        return eeg.astype(np.float32)

    return drawn


@pytest.fixture(scope="session")
def chain_signals() -> Callable[[np.ndarray], list[list[np.ndarray]]]:
    """The four differences of each chain, one by one, their mean in gaps, and 0 where nothing was recorded."""

    def difference(eeg: np.ndarray, plus: str, minus: str) -> np.ndarray:
        signal = eeg[:, CHANNELS.index(plus)].astype(np.float64) - eeg[:, CHANNELS.index(minus)]
        gap = np.isnan(signal)
        return np.where(gap, 0 if gap.all() else signal[~gap].mean(), signal)

    return lambda eeg: [[difference(eeg, *pair) for pair in pairs] for pairs in CHAINS.values()]
