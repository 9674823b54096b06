"""Scalograms of the four chains: the amplitude of complex Morlet wavelets, in decibel, as uint8 (11th place)."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.morlet import REACH, morlet_amplitude

LOW_DB, HIGH_DB = -20.0, 60.0
"""Amplitudes that 0 and 255 stand for, decibel re 1 microvolt: 0.1 and 1,000 microvolts."""


@dataclass(frozen=True, kw_only=True)
class Scalogram(Panel):
    """Mean amplitude of each chain's signals at each frequency, uint8 [4 chains, frequencies ascending, columns].

    Decibel re 1 microvolt: a 10 Hz rhythm of 10 microvolts is 20 dB in the row of 10 Hz. Rows are evenly spaced in the
    logarithm of the frequency; columns are means over equal parts of the 50 seconds, which are extended by reflection.
    A signal that was not recorded counts as silent.
    """

    num_scales: int = 64
    """Rows of the picture."""
    min_hz: float = 0.5
    """Frequency of the lowest row, hertz."""
    max_hz: float = 40.0
    """Frequency of the highest row, hertz."""
    num_cycles: float = 6.0
    """Width of the wavelets: the standard deviation of the Gaussian envelope is num_cycles / (2 pi frequency) seconds.
    Larger: finer frequency resolution, coarser time resolution. 6 is common; below 5 the signal's mean leaks in."""
    num_columns: int = 256
    """Columns for the 50 seconds."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Montage, filling of gaps and filters."""

    def __post_init__(self) -> None:
        if not 2 <= self.num_scales <= WINDOW_SAMPLES:
            raise ValueError(f"num_scales: must be from 2 to {WINDOW_SAMPLES}, found {self.num_scales}")
        if not 5 <= self.num_cycles <= 30:
            raise ValueError(f"num_cycles: must be from 5 to 30, found {self.num_cycles}")
        if not 0.1 <= self.min_hz < self.max_hz:
            raise ValueError(f"min_hz: must be at least 0.1 and below max_hz, found {self.min_hz} and {self.max_hz}")
        if self.max_hz * (1 + REACH / self.num_cycles) > RATE_HZ / 2:
            raise ValueError(
                f"max_hz: wavelets of {self.max_hz} Hz and num_cycles {self.num_cycles} reach beyond "
                f"{RATE_HZ // 2} Hz; lower max_hz or raise num_cycles"
            )
        if not 1 <= self.num_columns <= WINDOW_SAMPLES:
            raise ValueError(f"num_columns: must be from 1 to {WINDOW_SAMPLES}, found {self.num_columns}")

    @property
    def rows_hz(self) -> tuple[float, ...]:
        """Frequency of each row, hertz, ascending."""
        return tuple(np.geomspace(self.min_hz, self.max_hz, self.num_scales).tolist())

    @property
    def spec(self) -> PanelSpec:
        """0 stands for -20 dB and 255 for 60 dB."""
        half_column_s = WINDOW_SAMPLES / RATE_HZ / self.num_columns / 2
        return PanelSpec(
            shape=(len(REGIONS), self.num_scales, self.num_columns),
            dtype="uint8",
            codec="npy.zst",
            axes=("region", "frequency", "time"),
            unit="dB",
            regions=REGIONS,
            value_range=(LOW_DB, HIGH_DB),
            rows_hz=self.rows_hz,
            columns_s=(half_column_s, WINDOW_SAMPLES / RATE_HZ - half_column_s),
        )

    def prepare(self, recording: Recording) -> Any:
        """Derive the signals of the whole recording; gaps are filled later."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row."""
        ready = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        levels = (self.decibel(ready) - LOW_DB) * (255 / (HIGH_DB - LOW_DB))
        return np.rint(levels).astype(np.uint8)

    def decibel(self, signals: NDArray[np.float64]) -> NDArray[np.float32]:
        """Compute the chains of `signals` [4, n, samples], finite, microvolt: float32 [4, frequencies, columns]."""
        flat = signals.reshape(-1, signals.shape[-1])
        peaks = np.abs(flat).max(axis=1, keepdims=True) + np.finfo(np.float64).tiny
        amplitude = morlet_amplitude(
            flat / peaks,  # so that no finite input overflows
            rate_hz=RATE_HZ,
            rows_hz=self.rows_hz,
            num_cycles=self.num_cycles,
            num_columns=self.num_columns,
        )
        per_chain = amplitude.reshape(*amplitude.shape[:2], *signals.shape[:2])
        mean = np.einsum("fcrn,rn->rfc", per_chain, peaks.reshape(signals.shape[:2]) / signals.shape[1])
        least, most = 10 ** (LOW_DB / 20), 10 ** (HIGH_DB / 20)
        return np.asarray(20 * np.log10(mean.clip(least, most).astype(np.float32)))
