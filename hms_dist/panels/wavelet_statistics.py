"""Haar wavelet statistics of every channel, as in the wavelet ablation, on windows that slide over the 50 seconds.

Stored without a logarithm, which the canvas may apply.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import ChainSignals
from hms_dist.signals.haar import BANDS, haar_statistics
from hms_dist.signals.montage import CHAIN_MONTAGES

FEWEST_SAMPLES = 2 ** (len(BANDS) - 1)
"""Length of the shortest window with a coefficient of every level, samples."""
LARGEST = float(np.finfo(np.float16).max)
"""Larger magnitudes, in microvolts, are clipped to this."""


@dataclass(frozen=True, kw_only=True)
class WaveletStatistics(Panel):
    """Mean and standard deviation of each level's coefficients, float16 [16 channels, 12 statistics, windows].

    Haar (db1), 5 levels. Statistics in microvolts: mean of cA5, standard deviation of cA5, then the same of cD5, cD4,
    ... cD1; even rows are signed means, odd rows standard deviations. Channels are the signals of the four chains (20
    instead of 16 for a montage of single electrodes); one that was not recorded at all is 0. Values are clipped to plus
    and minus 65,504.
    """

    window_samples: int = 400
    """Length of each window, samples at 200 Hz: 32 to 10,000."""
    num_windows: int = 256
    """Columns: windows spread evenly from the first sample to the last. 1, with 10,000 samples per window: the whole 50
    seconds, as in the wavelet ablation."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Montage, filling of gaps and filters."""

    def __post_init__(self) -> None:
        if not FEWEST_SAMPLES <= self.window_samples <= WINDOW_SAMPLES:
            raise ValueError(
                f"window_samples: must be from {FEWEST_SAMPLES} to {WINDOW_SAMPLES}, found {self.window_samples}"
            )
        if not 1 <= self.num_windows <= WINDOW_SAMPLES:
            raise ValueError(f"num_windows: must be from 1 to {WINDOW_SAMPLES}, found {self.num_windows}")
        if (self.num_windows == 1) != (self.window_samples == WINDOW_SAMPLES):
            raise ValueError(
                f"num_windows: 1 requires window_samples {WINDOW_SAMPLES}, and that requires 1; "
                f"found {self.num_windows} with {self.window_samples}"
            )

    @property
    def starts(self) -> NDArray[np.int64]:
        """First sample of each window, int64 [windows]."""
        return np.rint(np.linspace(0, WINDOW_SAMPLES - self.window_samples, self.num_windows)).astype(np.int64)

    @property
    def spec(self) -> PanelSpec:
        """Channels are named after their electrodes, such as Fp1-F7."""
        chains = CHAIN_MONTAGES[self.signals.montage].values()
        names = tuple("-".join(pair) for chain in chains for pair in chain)
        centres_s = (self.starts[[0, -1]] + self.window_samples / 2) / RATE_HZ
        return PanelSpec(
            shape=(len(names), 2 * len(BANDS), self.num_windows),
            dtype="float16",
            codec="npy",
            axes=("channel", "statistic", "time"),
            unit="uV",
            regions=names,
            columns_s=(float(centres_s[0]), float(centres_s[1])),
        )

    def prepare(self, recording: Recording) -> Any:
        """Derive the signals of the whole recording; gaps are filled later."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row."""
        ready = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        statistics = haar_statistics(ready.reshape(-1, WINDOW_SAMPLES), self.starts, self.window_samples)
        return statistics.clip(-LARGEST, LARGEST).astype(np.float16)
