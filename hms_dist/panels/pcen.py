"""Per-channel energy normalisation of mel power (seed 004's pictures of bird calls), with an EEG's numbers.

Wang, Getreuer, Hughes, Lyon and Saurous, "Trainable frontend for robust and far-field keyword spotting", ICASSP
2017: each row of a spectrogram is divided by its own recent past, then compressed. What is always there (a noisy
electrode, a slow background) fades; what begins stands out. It takes the logarithm's place.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.energy import Start, normalise_energy, smoothing_weight
from hms_dist.signals.mel import edges_hz, filter_bank
from hms_dist.signals.short_time import short_time_power

FRAMES = {"window_samples": 128, "fft_samples": 1024, "hop_samples": 39}
"""The public baseline's frames: 0.64 s, 5.1 a second; window and hop are as 3.3 to 1, the seed's as 4 to 1."""
NUM_FRAMES = WINDOW_SAMPLES // FRAMES["hop_samples"]
"""Columns: frame t is centred on sample 39 t. Beyond its ends a signal goes on as its mirror image: zeros there would
make the first frames quiet, and all that follows an onset."""
NUM_MELS, MAX_HZ = 128, 20.0
"""Rows, evenly spaced on the mel scale from 0 Hz up to the last hertz."""
SMALLEST_PEAK = 1e-10
"""Microvolts; a signal that stays below is silent."""


@dataclass(frozen=True, kw_only=True)
class Pcen(Panel):
    """Mean over each chain's signals of (S / (epsilon + M)^gain + bias)^power - bias^power, uint8 [4, 128, 256].

    S is mel power (microvolt squared times the window's gain), rows rising in frequency; M its exponential mean
    over the frames up to this one. 0 stands for 0, 255 for the loudest frame after silence, S = M / smoothing weight;
    beyond counts as that.
    """

    gain: float = 0.98
    """How much of the past's loudness is divided out: 0 none, 1 all."""
    bias: float = 2.0
    """Added before compression: small changes stay nearly linear."""
    power: float = 0.5
    """Exponent of the compression, above 0 and at most 1."""
    time_constant_s: float = 7.5
    """Memory of M, seconds: as many frames (38) as the usual 0.4 s are at the seed's 94 frames a second, and longer
    than the period of any periodic discharge, which so does not divide itself out."""
    epsilon: float = 1e-6
    """Power that counts as silence, in the unit of S."""
    start: Start = "first_frame"
    """M before the first frame: that frame's power, or the mean over the first time_constant_s. From the first frame,
    four of five rows of steady noise are brightest in their first 7.5 s, up to three times as bright as anywhere
    later; from the mean, one of six or seven, as chance would have it. The default reproduces sets that lack this
    option; the recipes choose the mean."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Montage, filling of gaps and filters."""

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= 1:
            raise ValueError(f"gain: must be from 0 to 1, found {self.gain}")
        if not 0 < self.power <= 1:
            raise ValueError(f"power: must be above 0 and at most 1, found {self.power}")
        for name in ("bias", "time_constant_s", "epsilon"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: must be above 0, found {getattr(self, name)}")

    @property
    def spec(self) -> PanelSpec:
        """0 stands for 0, 255 for the loudest frame after silence."""
        onset = smoothing_weight(self.time_constant_frames) ** -self.gain
        last_s = (NUM_FRAMES - 1) * FRAMES["hop_samples"] / RATE_HZ
        return PanelSpec(
            shape=(len(REGIONS), NUM_MELS, NUM_FRAMES),
            dtype="uint8",
            codec="npy.zst",
            axes=("region", "frequency", "time"),
            unit="normalised energy",
            regions=REGIONS,
            value_range=(0.0, (onset + self.bias) ** self.power - self.bias**self.power),
            rows_hz=tuple(edges_hz(NUM_MELS, 0.0, MAX_HZ)[1:-1].tolist()),
            columns_s=(0.0, last_s),
        )

    @property
    def time_constant_frames(self) -> float:
        """Memory of M in frames."""
        return self.time_constant_s * RATE_HZ / FRAMES["hop_samples"]

    def prepare(self, recording: Recording) -> Any:
        """The signals of the whole recording, before gaps are filled."""
        return self.signals.of_recording(recording.eeg)

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """The panel of one label row."""
        chains = self.signals.ready(prepared[..., window.start : window.start + WINDOW_SAMPLES])
        values = np.stack([np.mean([self.normalised(signal) for signal in chain], axis=0) for chain in chains])
        highest = self.spec.value_range[1] if self.spec.value_range else 1.0
        return np.rint(values.clip(0, highest) * (255 / highest)).astype(np.uint8)

    def normalised(self, signal: NDArray[np.float64]) -> NDArray[np.float32]:
        """One `signal` [10,000], finite, microvolt: float32 [128 mel rows, 256 frames], 0 or above."""
        peak = max(float(np.abs(signal).max()), SMALLEST_PEAK)
        weights = _weights()
        extended = np.pad(signal / peak, FRAMES["fft_samples"] // 2, mode="reflect")
        power = short_time_power(extended, num_bins=weights.shape[1], centred=False, **FRAMES)
        return normalise_energy(
            weights @ power[:, :NUM_FRAMES],
            scale=peak**2,
            time_constant_frames=self.time_constant_frames,
            start=self.start,
            gain=self.gain,
            bias=self.bias,
            power=self.power,
            epsilon=self.epsilon,
        )


@lru_cache(maxsize=1)
def _weights() -> NDArray[np.float32]:
    weights = filter_bank(
        rate_hz=RATE_HZ, fft_samples=FRAMES["fft_samples"], num_mels=NUM_MELS, min_hz=0.0, max_hz=MAX_HZ
    )
    return weights.astype(np.float32)
