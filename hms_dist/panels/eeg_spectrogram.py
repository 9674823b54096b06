"""Spectrograms of the EEG window in decibel: power of the four chains by frequency and time, as uint8.

Covers both published forms, the 16th place's (5-second frames, the default) and the public baseline's (0.64-second
frames, zero-padded and centred), any other short-time Fourier transform, and the zoom into the central 10 seconds that
the 3rd and 7th place add.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil, floor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.panel import Panel, Window
from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.chains import REGIONS, ChainSignals
from hms_dist.signals.mel import bins_of_rows, edges_hz, filter_bank, mel_rows
from hms_dist.signals.short_time import short_time_power

FLOOR_DB = -80.0
"""Lowest value, relative to the loudest frame; quieter ones are drawn as this."""
MIN_POWER = 1e-10
"""Power, microvolt squared times the window's gain, that counts as none."""


@dataclass(frozen=True, kw_only=True)
class EegSpectrogram(Panel):
    """Mean decibel of each chain's signals (by default four differences), uint8 [4 chains, rows ascending, frames].

    0 dB is the loudest frame of each signal. A signal that is all zero, or was not recorded, is 0 dB throughout, as the
    published formula gives.
    """

    window_samples: int = 1000
    """Length of the Hann window, samples at 200 Hz; even."""
    fft_samples: int = 1000
    """Length of the Fourier transform, samples; the window is zero-padded to it. Even."""
    hop_samples: int = 40
    """Samples from one frame to the next."""
    num_mels: int | None = 128
    """Rows of the picture, evenly spaced on the mel scale. None: one row per Fourier bin."""
    min_hz: float = 0.0
    """Lower corner of the lowest row, or the lowest bin, hertz."""
    max_hz: float = 20.0
    """Upper corner of the highest row, or the highest bin, hertz."""
    centred: bool = False
    """True: frame t is centred on sample t * hop, with zeros beyond the ends, and the frame at the very end is dropped.
    False: frame t starts there, and every frame is within the EEG."""
    span_s: float = 50.0
    """Length of the drawn part, seconds, at the centre of the 50. Samples outside of it are not used."""
    reference: Literal["window", "record"] = "window"
    """Interval that defines 0 dB, the fill of gaps and the denoising: the drawn part, or the whole recording (as the
    16th place; a row's picture then depends on events minutes away)."""
    signals: ChainSignals = field(default_factory=ChainSignals)
    """Signals of each chain and how they are cleaned."""

    def __post_init__(self) -> None:
        for name in ("window_samples", "fft_samples"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise ValueError(f"{name}: must be even and at least 2, found {getattr(self, name)}")
        if not 0 < self.span_s <= WINDOW_SAMPLES / RATE_HZ:
            raise ValueError(f"span_s: must be above 0 and at most {WINDOW_SAMPLES // RATE_HZ}, found {self.span_s}")
        if not self.window_samples <= self.fft_samples <= self._span:
            raise ValueError(f"fft_samples: must be from window_samples to {self._span}, the samples of span_s")
        if not 1 <= self.hop_samples <= self._span:
            raise ValueError(f"hop_samples: must be from 1 to {self._span}, found {self.hop_samples}")
        if not 0 <= self.min_hz < self.max_hz <= RATE_HZ / 2:
            raise ValueError(f"max_hz: must be above min_hz and at most {RATE_HZ // 2}, found {self.max_hz}")
        if self.num_mels is not None and self.num_mels < 1:
            raise ValueError(f"num_mels: must be at least 1, found {self.num_mels}")
        if self.num_mels is None and not self._bins:
            raise ValueError("max_hz: no Fourier bin from min_hz to it; raise it or fft_samples")
        too_many = self.num_mels is not None and self.num_mels > self.fft_samples + 2  # a bin is in two rows at most
        if too_many or (self._weights is not None and not self._weights.any(axis=1).all()):
            raise ValueError("num_mels: some rows are narrower than a Fourier bin; lower it or raise fft_samples")

    @property
    def num_frames(self) -> int:
        """Number of frames in the drawn part: the width of the picture."""
        if self.centred:
            return self._span // self.hop_samples
        return (self._span - self.fft_samples) // self.hop_samples + 1

    @property
    def spec(self) -> PanelSpec:
        """0 stands for -80 dB and 255 for 0 dB."""
        rows_hz = self._rows_hz
        first_s = (self._first + (0 if self.centred else self.fft_samples / 2)) / RATE_HZ
        return PanelSpec(
            shape=(len(REGIONS), len(rows_hz), self.num_frames),
            dtype="uint8",
            codec="npy",
            axes=("region", "frequency", "time"),
            unit="dB",
            regions=REGIONS,
            value_range=(FLOOR_DB, 0.0),
            rows_hz=rows_hz,
            columns_s=(first_s, first_s + (self.num_frames - 1) * self.hop_samples / RATE_HZ),
        )

    def prepare(self, recording: Recording) -> Any:
        """With reference "record", the quantised picture of the whole recording; otherwise the chains' signals."""
        signals = self.signals.of_recording(recording.eeg)
        return quantise(self._decibel(signals)) if self.reference == "record" else signals

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row."""
        first = window.start + self._first
        if self.reference == "record":
            frame = first // self.hop_samples
            return np.asarray(prepared[..., frame : frame + self.num_frames])
        return quantise(self._decibel(prepared[..., first : first + self._span])[..., : self.num_frames])

    def decibel(self, eeg: NDArray[np.floating]) -> NDArray[np.float32]:
        """Compute the four chains of the whole `eeg` [samples, 20], microvolt: float32 [4, rows, frames] in [-80,
        0]."""
        return self._decibel(self.signals.of_recording(eeg))

    def _decibel(self, signals: NDArray[np.float64]) -> NDArray[np.float32]:
        """Compute the chains from their signals [4, n, samples]: float32 [4, rows, frames] in [-80, 0]."""
        return np.stack([self._mean_decibel(chain) for chain in self.signals.ready(signals)])

    def _mean_decibel(self, chain: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mean over the finite signals [n, samples] of one chain: float32 [rows, frames]."""
        total = sum(relative_log(*self._power(signal)) for signal in chain)
        return np.asarray(total * np.float32(10 / np.log(10) / len(chain)), np.float32)

    def _power(self, signal: NDArray[np.float64]) -> tuple[NDArray[np.float32], float]:
        """Power [rows, frames] of `signal` [samples] scaled to a peak of 1, and the scaled MIN_POWER."""
        weights, bins = self._weights, self._bins
        peak = max(float(np.abs(signal).max()), MIN_POWER)
        power = short_time_power(
            signal / peak,  # so that no finite input overflows
            window_samples=self.window_samples,
            fft_samples=self.fft_samples,
            hop_samples=self.hop_samples,
            num_bins=bins.stop if weights is None else weights.shape[1],
            centred=self.centred,
        )
        if weights is None:
            return power[bins.start :], MIN_POWER / peak**2
        return mel_rows(weights, self._bins_of_rows, np.ascontiguousarray(power)), MIN_POWER / peak**2

    @property
    def _span(self) -> int:
        """Samples of the drawn part."""
        return round(self.span_s * RATE_HZ)

    @property
    def _first(self) -> int:
        """First sample of the drawn part within the 50 seconds."""
        return (WINDOW_SAMPLES - self._span) // 2

    @property
    def _bins(self) -> range:
        """Fourier bins from min_hz to max_hz."""
        bins_a_hz = self.fft_samples / RATE_HZ
        return range(ceil(self.min_hz * bins_a_hz), floor(self.max_hz * bins_a_hz) + 1)

    @property
    def _rows_hz(self) -> tuple[float, ...]:
        """Centre of each row."""
        if self.num_mels is None:
            return tuple(bin_ * RATE_HZ / self.fft_samples for bin_ in self._bins)
        return tuple(edges_hz(self.num_mels, self.min_hz, self.max_hz)[1:-1].tolist())

    @property
    def _weights(self) -> NDArray[np.float32] | None:
        """Weights from bins to mel rows; None if rows are bins."""
        if self.num_mels is None:
            return None
        return _cached_weights(self.fft_samples, self.num_mels, self.min_hz, self.max_hz)[0]

    @property
    def _bins_of_rows(self) -> NDArray[np.int64]:
        """Bins with a weight, by mel row."""
        assert self.num_mels is not None
        return _cached_weights(self.fft_samples, self.num_mels, self.min_hz, self.max_hz)[1]


@lru_cache(maxsize=8)
def _cached_weights(
    fft_samples: int, num_mels: int, min_hz: float, max_hz: float
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The weights, and the bins with a weight by row."""
    weights = filter_bank(rate_hz=RATE_HZ, fft_samples=fft_samples, num_mels=num_mels, min_hz=min_hz, max_hz=max_hz)
    return weights.astype(np.float32), bins_of_rows(weights.astype(np.float32))


def relative_log(power: NDArray[np.float32], least: float) -> NDArray[np.float32]:
    """Change `power` in place to the natural logarithm of its ratio to its own maximum, at least -80 dB.

    Power below `least` counts as `least`; if all of it is, every value is 0.
    """
    loudest = max(float(power.max()), least)
    np.maximum(power, max(loudest * 10 ** (FLOOR_DB / 10), least), out=power)
    np.log(power, out=power)
    return np.subtract(power, np.log(loudest), out=power, dtype=np.float32)


def quantise(decibel: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Round decibel in [-80, 0], any float dtype, to the nearest of 256 levels, same shape."""
    return np.rint((decibel - FLOOR_DB) * (255 / -FLOOR_DB)).astype(np.uint8)
