"""Spectrograms of the 50-second EEG window in decibel: mel power of the four chains, as uint8.

Both published forms are settings of it: the 16th place's (5-second frames, the default) and the public
baseline's (0.64-second frames, zero-padded and centred).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.images.panel import Panel, Window
from hms_dist.recordings.reader import RATE_HZ, WINDOW_SAMPLES, Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.mel import edges_hz, filter_bank
from hms_dist.signals.montage import CHAINS, differences
from hms_dist.signals.short_time import short_time_power

FLOOR_DB = -80.0
"""Lowest value, relative to the loudest moment; quieter is drawn as this."""
MIN_POWER = 1e-10
"""Power, microvolt squared times the window's gain, that counts as none."""


@dataclass(frozen=True, kw_only=True)
class EegSpectrogram(Panel):
    """Mean decibel of each chain's four differences, uint8 [4 chains, mel rows rising, frames].

    0 dB is the loudest moment of each difference. NaN samples take the mean of their difference; a
    difference that is all zero, or not recorded at all, is 0 dB throughout (silence is as loud as its
    loudest moment: the published formula's answer).
    """

    window_samples: int = 1000
    """Length of the Hann window, samples at 200 Hz; even."""
    fft_samples: int = 1000
    """Length of the Fourier transform, samples; the window is padded with zeros to it. Even."""
    hop_samples: int = 40
    """Samples from one frame to the next."""
    num_mels: int = 128
    """Rows of the picture, evenly spaced on the mel scale."""
    min_hz: float = 0.0
    """Lower corner of the lowest row, hertz."""
    max_hz: float = 20.0
    """Upper corner of the highest row, hertz."""
    centred: bool = False
    """True: frame t is centred on sample t * hop, with zeros beyond the ends, and the frame at the very end is
    dropped. False: frame t starts there, and every frame lies within the EEG."""
    reference: Literal["window", "record"] = "window"
    """What gives 0 dB and the mean that fills gaps: the row's 50 seconds, or the whole recording (the 16th
    place's choice: a row's picture then depends on what happened minutes away)."""

    def __post_init__(self) -> None:
        for name in ("window_samples", "fft_samples"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ValueError(f"{name}: must be even and at least 2, found {getattr(self, name)}")
        if not self.window_samples <= self.fft_samples <= WINDOW_SAMPLES:
            raise ValueError(f"fft_samples: must be from window_samples to {WINDOW_SAMPLES}")
        if not 1 <= self.hop_samples <= WINDOW_SAMPLES:
            raise ValueError(f"hop_samples: must be from 1 to {WINDOW_SAMPLES}, found {self.hop_samples}")
        if not 0 <= self.min_hz < self.max_hz <= RATE_HZ / 2:
            raise ValueError(f"max_hz: must be above min_hz and at most {RATE_HZ // 2}, found {self.max_hz}")
        if self.num_mels < 1:
            raise ValueError(f"num_mels: must be at least 1, found {self.num_mels}")
        if not self._weights.any(axis=1).all():
            raise ValueError("num_mels: some rows are narrower than a Fourier bin; lower it or raise fft_samples")

    @property
    def num_frames(self) -> int:
        """Frames of a 50-second window: the width of the picture."""
        if self.centred:
            return WINDOW_SAMPLES // self.hop_samples
        return (WINDOW_SAMPLES - self.fft_samples) // self.hop_samples + 1

    @property
    def spec(self) -> PanelSpec:
        """0 stands for -80 dB and 255 for 0 dB."""
        corners_hz = edges_hz(self.num_mels, self.min_hz, self.max_hz)
        return PanelSpec(
            shape=(len(CHAINS), self.num_mels, self.num_frames),
            dtype="uint8",
            codec="npy.zst",
            axes=("region", "frequency", "time"),
            unit="dB",
            regions=tuple(CHAINS),
            value_range=(FLOOR_DB, 0.0),
            rows_hz=tuple(corners_hz[1:-1].tolist()),
        )

    def prepare(self, recording: Recording) -> Any:
        """With reference "record", the quantised picture of all of it; otherwise nothing."""
        return quantise(self.decibel(recording.eeg)) if self.reference == "record" else None

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """The panel of one label row."""
        if self.reference == "record":
            first = window.start // self.hop_samples
            return np.asarray(prepared[..., first : first + self.num_frames])
        eeg = window.recording.eeg[window.start : window.start + WINDOW_SAMPLES]
        return quantise(self.decibel(eeg)[..., : self.num_frames])

    def decibel(self, eeg: NDArray[np.floating]) -> NDArray[np.float32]:
        """The four chains of `eeg` [samples, 20], microvolt: float32 [4, mel rows, frames] in [-80, 0]."""
        signals = differences(eeg, [pair for chain in CHAINS.values() for pair in chain])
        return np.stack([self._mean_decibel(chain) for chain in np.split(signals, len(CHAINS))])

    def _mean_decibel(self, signals: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean over one chain's differences `signals` [n, samples], NaN in gaps: float32 [mel rows, frames]."""
        total = sum(relative_log(*self._mel_power(fill_gaps(signal))) for signal in signals)
        return np.asarray(total * np.float32(10 / np.log(10) / len(signals)), np.float32)

    def _mel_power(self, signal: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
        """Mel power [mel rows, frames] of `signal` [samples] scaled to a peak of 1, and the scaled MIN_POWER."""
        peak = max(float(np.abs(signal).max()), MIN_POWER)
        power = short_time_power(
            signal / peak,  # so that no finite input overflows
            window_samples=self.window_samples,
            fft_samples=self.fft_samples,
            hop_samples=self.hop_samples,
            num_bins=self._weights.shape[1],
            centred=self.centred,
        )
        return self._weights @ power, MIN_POWER / peak**2

    @property
    def _weights(self) -> NDArray[np.float32]:
        return _cached_weights(self.fft_samples, self.num_mels, self.min_hz, self.max_hz)


@lru_cache(maxsize=8)
def _cached_weights(fft_samples: int, num_mels: int, min_hz: float, max_hz: float) -> NDArray[np.float32]:
    weights = filter_bank(rate_hz=RATE_HZ, fft_samples=fft_samples, num_mels=num_mels, min_hz=min_hz, max_hz=max_hz)
    return weights.astype(np.float32)


def fill_gaps(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """`signal` [samples] with the mean of its finite samples in place of the others; zeros if it has none."""
    valid = np.isfinite(signal)
    if valid.all():
        return signal
    return np.where(valid, signal, signal[valid].mean() if valid.any() else 0.0)


def relative_log(power: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """`power`, changed in place to the natural logarithm of its ratio to its own maximum, at lowest -80 dB.

    Power below `least` counts as that much; where all of it is, every value is 0.
    """
    loudest = max(float(power.max()), least)
    np.maximum(power, max(loudest * 10 ** (FLOOR_DB / 10), least), out=power)
    np.log(power, out=power)
    return np.subtract(power, np.log(loudest), out=power, dtype=np.float32)


def quantise(decibel: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Decibel in [-80, 0] to the nearest of 256 levels, same shape."""
    return np.rint((decibel - FLOOR_DB) * (255 / -FLOOR_DB)).astype(np.uint8)
