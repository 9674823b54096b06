"""Log-mel spectrograms and per-channel energy normalisation drawn on the device: a batched FFT, then the filter bank.

The options and filter banks are those of the offline panels `LogMel` and `AudioPcen` (`panels.options`).
"""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from hms_dist.canvas.signals.drawn import DrawnPanel, check_signal, margin_of
from hms_dist.panels.options import LogMelOptions, MelFrames, PcenOptions
from hms_dist.shards.schema import PanelSpec

GPU_SAMPLES = 1 << 26
"""Samples of frames that a GPU transforms at once: 256 MB, and 1.5 times as much for spectrum and power. On a CPU the
rows are transformed one by one, which is as fast, and rounds a row in the same way in any batch."""


@dataclass(frozen=True, kw_only=True)
class DrawnMel(MelFrames, DrawnPanel):
    """Base of pictures of mel power."""

    @property
    @abstractmethod
    def unit(self) -> str:
        """Unit of the picture, that of the stored panel."""

    @abstractmethod
    def from_power(self, power: Tensor) -> Tensor:
        """Convert mel power, float32 [m, channels, num_mels, num_frames], to the picture."""

    def spec(self, stored: PanelSpec) -> PanelSpec:
        """Return the specification of the offline panel, in float32 and with the channels of the signal."""
        check_signal(stored, self.drawn_from, self.rate_hz, self.num_samples)
        return self.mel_spec(self.unit, dtype="float32", regions=stored.regions)

    def draw(self, signal: Tensor, stored: PanelSpec) -> Tensor:
        """Draw rows without their margins."""
        margin = margin_of(stored)
        row = signal[..., margin : margin + self.num_samples]
        size = self.num_frames * self.fft_samples * row.shape[1]
        at_once = max(1, GPU_SAMPLES // size) if row.device.type == "cuda" else 1
        with _exact(row.device):
            return self.from_power(torch.cat([mel_power(part, self) for part in torch.split(row, at_once)]))


@dataclass(frozen=True, kw_only=True)
class DrawnLogMel(LogMelOptions, DrawnMel):
    """Natural logarithm of mel power, as the panel LogMel."""

    @property
    def unit(self) -> str:
        """Natural-log power."""
        return "ln(power)"

    def from_power(self, power: Tensor) -> Tensor:
        """See the class."""
        return power.clamp_(min=self.least).log_()


@dataclass(frozen=True, kw_only=True)
class DrawnPcen(PcenOptions, DrawnMel):
    """Per-channel energy normalisation of mel power, as the panel AudioPcen."""

    @property
    def unit(self) -> str:
        """Normalised energy."""
        return "normalised energy"

    def from_power(self, power: Tensor) -> Tensor:
        """Compute (S / (epsilon + M)^gain + bias)^power - bias^power with S = `power` * scale, as
        `energy.normalise_energy`."""
        num_start = max(round(self.time_constant_frames), 1) if self.start == "mean" else 1
        before = power[..., :num_start].mean(dim=-1)
        if self.start == "one":
            before = torch.full_like(before, 1 / self.scale)
        past = exponential_mean(power, before, self.new_weight).add_(self.silence)
        ratio = power * past.log_().mul_(-self.gain).exp_() * self.scale ** (1 - self.gain)
        return (ratio + self.bias).pow_(self.power).sub_(self.bias**self.power)


def mel_power(signal: Tensor, mel: MelFrames) -> Tensor:
    """Compute the mel power of `signal` [m, channels, samples]: float32 [m, channels, num_mels, num_frames]."""
    half = mel.fft_samples // 2
    mode = "constant" if mel.padding == "zeros" else "reflect"
    padded = functional.pad(signal, (half, half), mode=mode)
    frames = padded.unfold(-1, mel.fft_samples, mel.hop_samples)
    window, weights = _tensors(mel, signal.device)
    power = torch.fft.rfft(frames * window)[..., : weights.shape[0]].abs().square_()
    return (power @ weights).transpose(-1, -2).contiguous()


def exponential_mean(values: Tensor, before: Tensor, weight: float) -> Tensor:
    """Smooth float32 `values` [..., frames] along time: M[t] = (1 - weight) M[t-1] + weight values[t], M[-1] = `before`
    [...].

    A recursion over frames would be a thousand small steps. Here step k adds the value 2^k frames back, so that ten
    steps of the whole tensor suffice (Hillis and Steele, "Data parallel algorithms", 1986).
    """
    means = values * weight
    means[..., 0] += (1 - weight) * before
    longer, reach = torch.empty_like(means), 1
    while reach < means.shape[-1]:
        longer[..., :reach] = means[..., :reach]
        torch.add(means[..., reach:], means[..., :-reach], alpha=(1 - weight) ** reach, out=longer[..., reach:])
        means, longer, reach = longer, means, 2 * reach
    return means


@lru_cache(maxsize=16)
def _tensors(mel: MelFrames, device: torch.device) -> tuple[Tensor, Tensor]:
    """Window [fft_samples] and weights [bins, num_mels] on a device."""
    return torch.from_numpy(mel.window).to(device), torch.from_numpy(mel.weights.T.copy()).to(device)


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """Compute products in full float32 inside the block, whatever the precision of the network."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
