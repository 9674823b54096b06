"""Per-channel energy normalisation of mel power (the bird-call detector's pictures), with parameters for EEG.

Wang, Getreuer, Hughes, Lyon and Saurous, "Trainable frontend for robust and far-field keyword spotting", ICASSP 2017:
each row of a spectrogram is divided by its own recent past, then compressed. Constant activity (a noisy electrode, a
slow background) fades, and onsets are emphasised. It replaces the logarithm.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.options import EnergyOptions
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.energy import Start, normalise_energy
from hms_dist.signals.mel import edges_hz, filter_bank
from hms_dist.signals.short_time import short_time_power

FRAMES = {"window_samples": 128, "fft_samples": 1024, "hop_samples": 39}
"""The public baseline's frames: 0.64 s, 5.1 per second; the ratio of window to hop is 3.3, in the bird-call detector
4."""
NUM_FRAMES = WINDOW_SAMPLES // FRAMES["hop_samples"]
"""Columns: frame t is centred on sample 39 t. The signal is extended by reflection: zero padding would make the first
frames quiet, and the following ones an onset."""
NUM_MELS, MAX_HZ = 128, 20.0
"""Rows, evenly spaced on the mel scale from 0 Hz to the highest frequency."""
SMALLEST_PEAK = 1e-10
"""A signal that stays below this many microvolts is silent."""


@dataclass(frozen=True, kw_only=True)
class Pcen(EnergyOptions, Panel):
    """Mean over each chain's signals of (S / (epsilon + M)^gain + bias)^power - bias^power, uint8 [4, 128, 256].

    S is mel power (microvolt squared times the window's gain), rows ascending in frequency; M is its exponential mean
    over the frames up to the current one. 0 stands for 0, 255 for the loudest frame after silence, S = M / smoothing
    weight; larger values are clipped.
    """

    time_constant_s: float = 7.5
    """Time constant of M, seconds: 38 frames, as the usual 0.4 s at the bird-call detector's 94 frames per second. It
    is longer than the period of any periodic discharge, so discharges are not normalised away."""
    start: Start = "first_frame"
    """Initial value of M: the first frame's power, or the mean over the first time_constant_s. With the first frame,
    four of five rows of steady noise are brightest in their first 7.5 s, up to three times as bright as anywhere later;
    with the mean, one of six or seven, as expected by chance. The default reproduces sets that lack this option; the
    recipes choose the mean."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Montage, filling of gaps and filters."""

    @property
    def spec(self) -> PanelSpec:
        """0 stands for 0, 255 for the loudest frame after silence."""
        last_s = (NUM_FRAMES - 1) * FRAMES["hop_samples"] / RATE_HZ
        return PanelSpec(
            shape=(len(REGIONS), NUM_MELS, NUM_FRAMES),
            dtype="uint8",
            codec="npy.zst",
            axes=("region", "frequency", "time"),
            unit="normalised energy",
            regions=REGIONS,
            value_range=(0.0, self.highest(self.time_constant_frames)),
            rows_hz=tuple(edges_hz(NUM_MELS, 0.0, MAX_HZ)[1:-1].tolist()),
            columns_s=(0.0, last_s),
        )

    @property
    def time_constant_frames(self) -> float:
        """Time constant of M in frames."""
        return self.time_constant_s * RATE_HZ / FRAMES["hop_samples"]

    def prepare(self, recording: Recording) -> Any:
        """Derive the signals of the whole recording; gaps are filled later."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row."""
        chains = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        values = np.stack([np.mean([self.normalised(signal) for signal in chain], axis=0) for chain in chains])
        highest = self.spec.value_range[1] if self.spec.value_range else 1.0
        return np.rint(values.clip(0, highest) * (255 / highest)).astype(np.uint8)

    def normalised(self, signal: NDArray[np.float64]) -> NDArray[np.float32]:
        """Normalise one `signal` [10,000], finite, microvolt: float32 [128 mel rows, 256 frames], 0 or above."""
        peak = max(float(np.abs(signal).max()), SMALLEST_PEAK)
        weights = _weights()
        extended = np.pad(signal / peak, FRAMES["fft_samples"] // 2, mode="reflect")
        power = short_time_power(extended, num_bins=weights.shape[1], centred=False, **FRAMES)
        return normalise_energy(
            weights @ power[:, :NUM_FRAMES],
            scale=peak**2,
            time_constant_frames=self.time_constant_frames,
            start=self.start,
            **self.compression,
        )


@lru_cache(maxsize=1)
def _weights() -> NDArray[np.float32]:
    weights = filter_bank(
        rate_hz=RATE_HZ, fft_samples=FRAMES["fft_samples"], num_mels=NUM_MELS, min_hz=0.0, max_hz=MAX_HZ
    )
    return weights.astype(np.float32)
