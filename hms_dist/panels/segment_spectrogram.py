"""Spectrograms of the 50-second EEG window by `scipy.signal.spectrogram`, as the course report generates them.

Stored unnormalised as float16 natural-log power, like the 10-minute spectrogram; normalisation is a step of the canvas.
The defaults of taper and detrending are SciPy's.
"""

from dataclasses import dataclass, field
from math import ceil, floor
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals

TUKEY_SHAPE = 0.25
"""Fraction of a segment in the cosine ends of the Tukey window: SciPy's default."""


@dataclass(frozen=True, kw_only=True)
class SegmentSpectrogram(Panel):
    """Natural logarithm of each chain's density, the mean of its signals', float16 [4 chains, rows ascending, frames].

    Segments are within the 50 seconds; density is one-sided, uV^2/Hz. -inf: a chain that is silent or was not recorded.
    """

    segment_samples: int = 256
    """Length of a segment, samples at 200 Hz (SciPy's `nperseg`)."""
    overlap_samples: int = 32
    """Samples that a segment shares with the next (`noverlap`)."""
    fft_samples: int = 256
    """Length of the Fourier transform, samples; segments are zero-padded to it (`nfft`)."""
    taper: Literal["tukey", "hann", "hamming", "boxcar"] = "tukey"
    """Window of a segment (`window`): tukey with a shape of 0.25 (SciPy's default), or another, periodic as in
    SciPy."""
    detrend: Literal["constant", "linear", "none"] = "constant"
    """Detrending of each segment: its mean is removed (SciPy's default), its least-squares line, or nothing."""
    min_hz: float = 0.0
    """The lowest row is the first Fourier bin at or above it, hertz."""
    max_hz: float = 20.0
    """The highest row is the last Fourier bin at or below it, hertz."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Signals of each chain and how they are cleaned: `denoise` gives the course report's denoised spectrograms."""

    def __post_init__(self) -> None:
        if not 2 <= self.segment_samples <= WINDOW_SAMPLES:
            raise ValueError(f"segment_samples: must be from 2 to {WINDOW_SAMPLES}, found {self.segment_samples}")
        if not 0 <= self.overlap_samples < self.segment_samples:
            raise ValueError(
                f"overlap_samples: must be from 0 to below segment_samples ({self.segment_samples}), found "
                f"{self.overlap_samples}"
            )
        if not self.segment_samples <= self.fft_samples <= WINDOW_SAMPLES:
            raise ValueError(
                f"fft_samples: must be from segment_samples ({self.segment_samples}) to {WINDOW_SAMPLES}, found "
                f"{self.fft_samples}"
            )
        if not 0 <= self.min_hz < self.max_hz <= RATE_HZ / 2:
            raise ValueError(f"max_hz: must be above min_hz and at most {RATE_HZ // 2}, found {self.max_hz}")
        if not self._bins:
            raise ValueError("max_hz: no Fourier bin from min_hz to it; raise it or fft_samples")

    @property
    def spec(self) -> PanelSpec:
        """Stored raw, like the 10-minute spectrogram."""
        hop = self.segment_samples - self.overlap_samples
        num_frames = (WINDOW_SAMPLES - self.overlap_samples) // hop
        first_s = self.segment_samples / 2 / RATE_HZ
        return PanelSpec(
            shape=(len(REGIONS), len(self._bins), num_frames),
            dtype="float16",
            codec="npy",
            axes=("region", "frequency", "time"),
            unit="ln(power)",
            regions=REGIONS,
            rows_hz=tuple(bin_ * RATE_HZ / self.fft_samples for bin_ in self._bins),
            columns_s=(first_s, first_s + (num_frames - 1) * hop / RATE_HZ),
        )

    def prepare(self, recording: Recording) -> NDArray[np.float64]:
        """Derive the chains' signals of the whole recording [4, n, samples]."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: NDArray[np.float64], window: Window) -> NDArray[np.float16]:
        """Draw the panel of one label row."""
        from scipy.signal import spectrogram  # imported late: reading a configuration does not need it

        chains = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        _, _, density = spectrogram(
            chains,
            RATE_HZ,
            window=(self.taper, TUKEY_SHAPE) if self.taper == "tukey" else self.taper,
            nperseg=self.segment_samples,
            noverlap=self.overlap_samples,
            nfft=self.fft_samples,
            detrend=False if self.detrend == "none" else self.detrend,
        )
        with np.errstate(divide="ignore"):  # silence: -inf
            return np.log(density[:, :, self._bins.start : self._bins.stop].mean(axis=1)).astype(np.float16)

    @property
    def _bins(self) -> range:
        bins_a_hz = self.fft_samples / RATE_HZ
        return range(ceil(self.min_hz * bins_a_hz), floor(self.max_hz * bins_a_hz) + 1)
