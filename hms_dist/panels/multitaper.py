"""Multitaper spectrograms of the 50-second EEG window, as in the 7th place: density of the four chains in dB.

By default the rows are the 100 frequencies of Kaggle's 10-minute spectrogram. Values are absolute: 0 dB is 1 uV^2/Hz,
independent of the rest of the recording.
"""

from dataclasses import dataclass, field
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.multitaper import multitaper_density

LOWEST_DB, HIGHEST_DB = -30.0, 60.0
"""Values of pixels 0 and 255; others are clipped. Amplifier noise is below this range, seizures are within it."""


@dataclass(frozen=True, kw_only=True)
class Multitaper(Panel):
    """Mean power density of each chain's signals, decibel of uV^2/Hz: uint8 [4 chains, rows ascending, frames].

    Every frame is within the 50 seconds, and its mean is removed. A chain of zeros, or one that was not recorded, has
    the lowest value throughout.
    """

    window_s: float = 4.0
    """Length of a frame, seconds."""
    step_s: float = 0.5
    """Time from one frame to the next, seconds."""
    fft_samples: int = 1024
    """Length of the Fourier transform, samples; frames are zero-padded to it. Even."""
    min_hz: float = 0.5
    """The lowest row is the first Fourier bin at or above it, hertz."""
    max_hz: float = 20.0
    """The highest row is the last Fourier bin at or below it, hertz."""
    time_half_bandwidth: float = 2.0
    """Half bandwidth, in units of 1 / window_s: a tone is spread over this much on either side, by default 0.5 Hz."""
    num_tapers: int = 3
    """Number of tapers that are averaged; those above 2 * time_half_bandwidth - 1 leak."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Signals of each chain and how they are cleaned."""

    def __post_init__(self) -> None:
        if not 1 <= self._hop <= WINDOW_SAMPLES:
            raise ValueError(f"step_s: must be from {1 / RATE_HZ} to 50, found {self.step_s}")
        if not 2 <= self._window <= self.fft_samples <= WINDOW_SAMPLES or self.fft_samples % 2:
            raise ValueError(
                f"fft_samples: must be even, from the samples of window_s ({self._window}, at least 2) "
                f"to {WINDOW_SAMPLES}, found {self.fft_samples}"
            )
        if not 0 <= self.min_hz < self.max_hz <= RATE_HZ / 2:
            raise ValueError(f"max_hz: must be above min_hz and at most {RATE_HZ // 2}, found {self.max_hz}")
        if not self._bins:
            raise ValueError("max_hz: no Fourier bin from min_hz to it; raise it or fft_samples")
        if not 1 <= self.time_half_bandwidth < self._window / 2:
            raise ValueError(
                f"time_half_bandwidth: must be at least 1 and below {self._window / 2:g}, half the samples of "
                f"window_s, found {self.time_half_bandwidth}"
            )
        if not 1 <= self.num_tapers <= 2 * self.time_half_bandwidth:
            raise ValueError(
                f"num_tapers: must be from 1 to twice time_half_bandwidth "
                f"({floor(2 * self.time_half_bandwidth)}), found {self.num_tapers}"
            )

    @property
    def spec(self) -> PanelSpec:
        """0 stands for -30 dB and 255 for 60 dB."""
        num_frames = (WINDOW_SAMPLES - self._window) // self._hop + 1
        first_s = self._window / 2 / RATE_HZ
        return PanelSpec(
            shape=(len(REGIONS), len(self._bins), num_frames),
            dtype="uint8",
            codec="npy.zst",
            axes=("region", "frequency", "time"),
            unit="dB of uV^2/Hz",
            regions=REGIONS,
            value_range=(LOWEST_DB, HIGHEST_DB),
            rows_hz=tuple(bin_ * RATE_HZ / self.fft_samples for bin_ in self._bins),
            columns_s=(first_s, first_s + (num_frames - 1) * self._hop / RATE_HZ),
        )

    def prepare(self, recording: Recording) -> NDArray[np.float64]:
        """Derive the chains' signals of the whole recording [4, n, samples]."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: NDArray[np.float64], window: Window) -> NDArray[np.uint8]:
        """Draw the panel of one label row."""
        chains = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        decibel = 10 * np.log10(np.maximum(self.density(chains), 10 ** (LOWEST_DB / 10)))
        levels = (np.minimum(decibel, HIGHEST_DB) - LOWEST_DB) * (255 / (HIGHEST_DB - LOWEST_DB))
        return np.rint(levels).astype(np.uint8)

    def density(self, chains: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density of finite `chains` [4, n, samples], microvolt: float64 [4, rows, frames], uV^2/Hz."""
        return np.stack([self._density(chain)[:, self._bins.start :].mean(axis=0) for chain in chains])

    def _density(self, signals: NDArray[np.float64]) -> NDArray[np.float64]:
        return multitaper_density(
            signals,
            rate_hz=RATE_HZ,
            window_samples=self._window,
            hop_samples=self._hop,
            fft_samples=self.fft_samples,
            time_half_bandwidth=self.time_half_bandwidth,
            num_tapers=self.num_tapers,
            num_bins=self._bins.stop,
        )

    @property
    def _window(self) -> int:
        return round(self.window_s * RATE_HZ)

    @property
    def _hop(self) -> int:
        return round(self.step_s * RATE_HZ)

    @property
    def _bins(self) -> range:
        bins_a_hz = self.fft_samples / RATE_HZ
        return range(ceil(self.min_hz * bins_a_hz), floor(self.max_hz * bins_a_hz) + 1)
