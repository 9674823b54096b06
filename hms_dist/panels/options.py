"""Options and filter banks of pictures that are drawn offline by a panel, or on the device by a canvas.

One definition for both halves: this module is all that the online half imports of the panels. It knows neither how a
picture is drawn nor where its samples come from.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.energy import SMALLEST, Start, smoothing_weight
from hms_dist.signals.mel import edges_hz, filter_bank
from hms_dist.signals.mel_power import Padding, Slopes, hann, slopes_of

MOST_FFT_SAMPLES, MOST_MELS = 1 << 16, 1024
"""Longest Fourier transform, samples, and most mel rows."""
AUDIO = ("audio",)
"""Name of the one channel of audio, along the first axis of its panels."""


@dataclass(frozen=True, kw_only=True)
class MelFrames:
    """Frames of a short-time Fourier transform, and the mel rows of their power; the defaults are the bird-call
    detector's for audio of 48 kHz (10 s: 128 x 938).

    Frame t is centred on sample t * hop_samples, the last frame at or before the end. Slaney's mel scale with triangles
    of equal area, as librosa's.
    """

    rate_hz: int = 48_000
    """Sampling rate of the recordings, that of the data set."""
    window_s: float = 10.0
    """Length of a row, seconds, that of the data set."""
    window_samples: int = 2048
    """Length of the Hann window (periodic), samples."""
    fft_samples: int = 2048
    """Length of the Fourier transform, samples; the window is zero-padded to it on both sides."""
    hop_samples: int = 512
    """Samples from one frame to the next."""
    num_mels: int = 128
    """Rows, evenly spaced on the mel scale."""
    min_hz: float = 0.0
    """Lower corner of the lowest row, hertz."""
    max_hz: float | None = None
    """Upper corner of the highest row, hertz. None: half the sampling rate."""
    padding: Padding = "zeros"
    """Values beyond the ends of the row's samples: zeros, as librosa's default, or their mirror image, with which the
    first frames are neither quiet nor followed by an onset."""

    def __post_init__(self) -> None:
        if not 2 <= self.window_samples <= self.fft_samples:
            raise ValueError(
                f"window_samples: must be from 2 to fft_samples ({self.fft_samples}), found {self.window_samples}"
            )
        most = min(MOST_FFT_SAMPLES, self.num_samples)
        if self.fft_samples % 2 or self.fft_samples > most:
            raise ValueError(f"fft_samples: must be even and at most {most}, found {self.fft_samples}")
        if not 1 <= self.hop_samples <= self.num_samples:
            raise ValueError(f"hop_samples: must be from 1 to {self.num_samples}, found {self.hop_samples}")
        if not 0 <= self.min_hz < self.highest_hz <= self.rate_hz / 2:
            raise ValueError(f"max_hz: must be above min_hz and at most {self.rate_hz / 2:g}, found {self.max_hz}")
        if not 1 <= self.num_mels <= MOST_MELS:
            raise ValueError(f"num_mels: must be from 1 to {MOST_MELS}, found {self.num_mels}")
        if not self.weights.any(axis=1).all():
            raise ValueError(
                f"num_mels: some of {self.num_mels} rows are narrower than a Fourier bin; lower it or raise fft_samples"
            )

    @property
    def num_samples(self) -> int:
        """Samples of a row."""
        return round(self.window_s * self.rate_hz)

    @property
    def num_frames(self) -> int:
        """Number of frames: the width of the picture."""
        return self.num_samples // self.hop_samples + 1

    @property
    def highest_hz(self) -> float:
        """Upper corner of the highest row, hertz."""
        return self.rate_hz / 2 if self.max_hz is None else self.max_hz

    @property
    def window(self) -> NDArray[np.float32]:
        """The window in the middle of a transform, float32 [fft_samples]."""
        return _window(self.window_samples, self.fft_samples)

    @property
    def weights(self) -> NDArray[np.float32]:
        """Weights from the power of each Fourier bin to that of each mel row, float32 [num_mels, bins with a
        weight]."""
        return _bank(self.rate_hz, self.fft_samples, self.num_mels, self.min_hz, self.highest_hz)[0]

    @property
    def slopes(self) -> Slopes:
        """The sides of the rows' triangles, with the same weights."""
        return _bank(self.rate_hz, self.fft_samples, self.num_mels, self.min_hz, self.highest_hz)[1]

    def mel_spec(self, unit: str, *, dtype: Literal["float16", "float32"], regions: tuple[str, ...]) -> PanelSpec:
        """Return the specification of a picture [regions, num_mels, num_frames]; float32 is never stored."""
        return PanelSpec(
            shape=(len(regions), self.num_mels, self.num_frames),
            dtype=dtype,
            codec="npy",
            axes=("region", "frequency", "time"),
            unit=unit,
            regions=regions,
            rows_hz=tuple(edges_hz(self.num_mels, self.min_hz, self.highest_hz)[1:-1].tolist()),
            columns_s=(0.0, (self.num_frames - 1) * self.hop_samples / self.rate_hz),
        )


@dataclass(frozen=True, kw_only=True)
class LogMelOptions(MelFrames):
    """Natural logarithm of mel power."""

    least: float = 1e-10
    """Smaller powers count as this one (librosa's `amin`); full scale is 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1e-30 <= self.least < np.inf:
            raise ValueError(f"least: must be at least 1e-30, found {self.least}")


@dataclass(frozen=True, kw_only=True)
class EnergyOptions:
    """Parameters of per-channel energy normalisation: (S / (epsilon + M)^gain + bias)^power - bias^power."""

    gain: float = 0.98
    """Exponent of the division by past energy: 0 none, 1 full."""
    bias: float = 2.0
    """Added before compression, relative to the normalised energy: small changes stay nearly linear."""
    power: float = 0.5
    """Exponent of the compression, above 0 and at most 1."""
    time_constant_s: float = 0.4
    """Time constant of M, the exponential mean of S over the frames up to the current one, seconds."""
    epsilon: float = 1e-6
    """Power that counts as silence, in the unit of S."""
    start: Start = "first_frame"
    """Initial value of M: the first frame's power, or the mean over the first time_constant_s, or 1 as in librosa."""

    def __post_init__(self) -> None:
        if not 0 <= self.gain <= 1:
            raise ValueError(f"gain: must be from 0 to 1, found {self.gain}")
        if not 0 < self.power <= 1:
            raise ValueError(f"power: must be above 0 and at most 1, found {self.power}")
        for name in ("bias", "time_constant_s", "epsilon"):
            if not 0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name}: must be above 0, found {getattr(self, name)}")

    @property
    def compression(self) -> dict[str, float]:
        """Arguments of `energy.normalise_energy` that do not depend on frames and units."""
        return {"gain": self.gain, "bias": self.bias, "power": self.power, "epsilon": self.epsilon}

    def highest(self, time_constant_frames: float) -> float:
        """Value of the loudest frame after silence, S = M / smoothing weight."""
        onset = smoothing_weight(time_constant_frames) ** -self.gain
        return float((onset + self.bias) ** self.power - self.bias**self.power)


@dataclass(frozen=True, kw_only=True)
class PcenOptions(EnergyOptions, MelFrames):
    """Per-channel energy normalisation of mel power; the defaults are librosa's parameters for audio of 16 bits."""

    start: Start = "one"
    """Initial value of M: the first frame's power, or the mean over the first time_constant_s, or 1 as in librosa."""
    scale: float = 2.0**31
    """Factor of the power of samples whose full scale is 1, giving the unit of epsilon and of an initial M of 1:
    librosa's documentation asks for 2^31."""

    def __post_init__(self) -> None:
        EnergyOptions.__post_init__(self)
        MelFrames.__post_init__(self)
        if not 0 < self.scale < np.inf:
            raise ValueError(f"scale: must be above 0, found {self.scale}")

    @property
    def time_constant_frames(self) -> float:
        """Time constant of M in frames."""
        return self.time_constant_s * self.rate_hz / self.hop_samples

    @property
    def new_weight(self) -> float:
        """Weight of a new frame in M."""
        return smoothing_weight(self.time_constant_frames)

    @property
    def silence(self) -> float:
        """Epsilon as power of samples whose full scale is 1."""
        return max(self.epsilon / self.scale, SMALLEST)


@lru_cache(maxsize=16)
def _bank(
    rate_hz: int, fft_samples: int, num_mels: int, min_hz: float, max_hz: float
) -> tuple[NDArray[np.float32], Slopes]:
    """The weights, and their sides."""
    weights = filter_bank(rate_hz=rate_hz, fft_samples=fft_samples, num_mels=num_mels, min_hz=min_hz, max_hz=max_hz)
    corners = edges_hz(num_mels, min_hz, max_hz) * (fft_samples / rate_hz)
    return weights.astype(np.float32), slopes_of(weights.astype(np.float32), corners)


@lru_cache(maxsize=16)
def _window(window_samples: int, fft_samples: int) -> NDArray[np.float32]:
    return hann(window_samples, fft_samples).astype(np.float32)
