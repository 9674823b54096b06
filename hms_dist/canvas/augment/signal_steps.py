"""Changes of stored signals in time, before pictures are drawn from them: shift, reversal, copy of the annotation.

Signals are float32 [n, channels, samples] with a margin on both sides of the row; positions are in samples from the
first one.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change
from hms_dist.canvas.augment.draws import Floats, RowDraws, between
from hms_dist.canvas.signals.drawn import margin_of, sample_rate_hz
from hms_dist.shards.schema import PanelSpec


@dataclass(frozen=True, eq=False)
class SignalLayout:
    """Geometry of the rows that a step changes."""

    rate_hz: float
    num_samples: int
    """Samples of a row with its margins."""
    margin: int
    """Samples on each side of the row."""
    annotated: Floats
    """First and last sample of the annotated part of each row [n, 2], where earlier steps have moved it."""
    donated: Floats
    """First and last sample of the annotated part of the rows with which they are mixed [n, 2]; empty if the step does
    not mix."""


def signal_layout(spec: PanelSpec, annotated_s: NDArray[np.float64]) -> SignalLayout:
    """Return the layout of rows with annotated parts `annotated_s` [n, 2], seconds from the start of the row."""
    rate_hz, margin = sample_rate_hz(spec), margin_of(spec)
    annotated = np.rint(annotated_s * rate_hz) + margin
    return SignalLayout(rate_hz, spec.shape[-1], margin, annotated, annotated[:0])


@dataclass(frozen=True, kw_only=True)
class SignalChange(Change):
    """A change of each row's signal, independently."""

    changes: ClassVar[frozenset[str]] = frozenset({"signals"})

    @abstractmethod
    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Convert the draws of n rows to parameters [n, parameters]."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Tensor, layout: SignalLayout) -> Tensor:
        """Change signals `images` [n, channels, samples]; returns a new tensor."""

    def moved(self, annotated: Floats, parameters: Floats) -> Floats:
        """Return where the annotated parts [n, 2] are afterwards."""
        del parameters
        return annotated


@dataclass(frozen=True, kw_only=True)
class SignalShift(SignalChange):
    """Shift of the row by up to `max_s` earlier or later; the margins of the signal move in, and zeros beyond them.

    The bird-call detector shifts annotations of a present species by 0.02 s, and the others at random widths.
    """

    max_s: float = 0.02
    """Limit of the shift, which is uniform in [-max_s, max_s], seconds; a negative shift shows later samples."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_s > 0:
            raise ValueError(f"max_s: expected above 0, found {self.max_s}")

    def signal_fault(self, spec: PanelSpec) -> str | None:
        """Return a fault if the margin is shorter than the shift."""
        margin_s = margin_of(spec) / sample_rate_hz(spec)
        if self.max_s <= margin_s + 1e-9:
            return None
        return f"max_s {self.max_s:g} is beyond its margin of {margin_s:g} s; lower it, or render a longer margin_s"

    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Draw the shift in samples."""
        return np.rint(between(draws.uniform(1), (-self.max_s, self.max_s)) * layout.rate_hz)

    def apply(self, images: Tensor, parameters: Tensor, layout: SignalLayout) -> Tensor:
        """See the class."""
        sources = sample_numbers(images) - parameters[:, :1].long()
        return taken(images, sources) * ((sources >= 0) & (sources < layout.num_samples))[:, None]

    def moved(self, annotated: Floats, parameters: Floats) -> Floats:
        """Return the shifted parts."""
        return annotated + parameters[:, :1]


@dataclass(frozen=True, kw_only=True)
class SignalReverse(SignalChange):
    """Reversal in time, of the annotated part in its place, or of the whole row."""

    part: Literal["annotation", "row"] = "annotation"
    """annotation: the rest of the row stays as it is. row: the annotated part moves to its mirror image's place."""
    fade_s: float = 0.01
    """Length of the cross-fades at the ends of the reversed annotation, seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fade(self.fade_s)

    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Return first and last sample of the reversed part, and the length of the fades."""
        del draws
        ends, fade = layout.annotated, self.fade_s * layout.rate_hz
        if self.part == "row":
            ends, fade = np.tile([0.0, layout.num_samples - 1], (len(ends), 1)), 0.0
        return np.concatenate([ends, np.full((len(ends), 1), fade)], axis=1)

    def apply(self, images: Tensor, parameters: Tensor, layout: SignalLayout) -> Tensor:
        """See the class."""
        del layout
        first, last = parameters[:, :1].long(), parameters[:, 1:2].long()
        reversed_ = taken(images, first + last - sample_numbers(images))
        return torch.lerp(images, reversed_, within(images, parameters[:, :2], parameters[:, 2:]))

    def moved(self, annotated: Floats, parameters: Floats) -> Floats:
        """Return the mirrored parts."""
        return (parameters[:, :1] + parameters[:, 1:2]) - annotated[:, ::-1]


@dataclass(frozen=True, kw_only=True)
class SignalPaste(SignalChange):
    """Cut and paste: a copy of the annotated part, shifted at random, replaces the samples there; the part stays.

    After the bird-call detector, which pastes annotated parts of pictures. Copies do not leave the row: shifts beyond
    its ends are reduced.
    """

    max_s: float = 2.0
    """Limit of the shift of the copy, which is uniform in [-max_s, max_s], seconds."""
    fade_s: float = 0.01
    """Length of the cross-fades at the ends of the copy, seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_s > 0:
            raise ValueError(f"max_s: expected above 0, found {self.max_s}")
        check_fade(self.fade_s)

    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Return first and last sample of the copy, the length of the fades, and the shift."""
        shift = between(draws.uniform(1), (-self.max_s, self.max_s)) * layout.rate_hz
        first, last = layout.annotated[:, :1], layout.annotated[:, 1:]
        end = layout.num_samples - layout.margin - 1
        shift = np.rint(np.maximum(np.minimum(shift, end - last), layout.margin - first))
        fade = np.full_like(shift, self.fade_s * layout.rate_hz)
        return np.concatenate([first + shift, last + shift, fade, shift], axis=1)

    def apply(self, images: Tensor, parameters: Tensor, layout: SignalLayout) -> Tensor:
        """See the class."""
        del layout
        copy = taken(images, sample_numbers(images) - parameters[:, 3:].long())
        return torch.lerp(images, copy, within(images, parameters[:, :2], parameters[:, 2:3]))


def check_fade(fade_s: float) -> None:
    """Raise ValueError for a negative or infinite fade."""
    if not 0 <= fade_s < float("inf"):
        raise ValueError(f"fade_s: expected 0 or more, found {fade_s}")


def sample_numbers(signals: Tensor) -> Tensor:
    """Numbers of the samples of `signals` [n, channels, samples], any dtype: int64 [samples]."""
    return torch.arange(signals.shape[-1], device=signals.device)


def taken(signals: Tensor, sources: Tensor) -> Tensor:
    """Samples of `signals` [n, channels, samples], any dtype, at `sources`, int64 [n, samples].

    Beyond an end, the last sample there.
    """
    inside = sources.clamp(0, signals.shape[-1] - 1)
    return signals.gather(-1, inside[:, None].expand(-1, signals.shape[1], -1))


def within(signals: Tensor, ends: Tensor, fade: Tensor) -> Tensor:
    """Weights [n, 1, samples]: 1 from the first to the last sample of `ends` [n, 2], 0 outside, with linear ramps of
    `fade` [n, 1] samples inside; at least one sample is 1 if a part is as long as a fade. The dtype is that of
    `signals`, any float dtype."""
    places = sample_numbers(signals).double()
    inside = torch.minimum(places - ends[:, :1], ends[:, 1:] - places) + 1
    return (inside / (fade + 1)).clamp(0, 1).to(signals.dtype)[:, None]
