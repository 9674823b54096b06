"""Mixes of stored signals in time: another row's annotated part pasted, and a weighted mean at the annotated parts."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Mix
from hms_dist.canvas.augment.draws import Floats, RowDraws, whole_below
from hms_dist.canvas.augment.mix import BetaMix
from hms_dist.canvas.augment.signal_steps import SignalLayout, check_fade, sample_numbers, taken, within


@dataclass(frozen=True, kw_only=True)
class SignalMix(Mix):
    """A mix of each row's signal with another row of its group, shifted in time.

    Parameters of a row: its own share in the label; first and last sample that the other row changes; length of the
    fades; shift of the other row.
    """

    changes: ClassVar[frozenset[str]] = frozenset({"signals"})

    fade_s: float = 0.01
    """Length of the cross-fades at the ends of the other row's part, seconds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fade(self.fade_s)

    @abstractmethod
    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Convert the draws of n rows to parameters [n, 5]."""

    def has_room(self, layout: SignalLayout) -> NDArray[np.bool_]:
        """Whether each row has room for the other row's part [n]; rows without stay as they are."""
        return np.ones(len(layout.annotated), bool)

    def apply(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """See the class."""
        shifted = taken(partners, sample_numbers(images) - parameters[:, 4:].long())
        inside = within(images, parameters[:, 1:3], parameters[:, 3:4])
        return torch.lerp(images, shifted, self.weight(parameters[:, :1].to(images.dtype))[..., None] * inside)

    @abstractmethod
    def weight(self, own: Tensor) -> Tensor:
        """Weight of the other row's samples [n, 1] from the row's `own` share [n, 1], any float dtype."""


@dataclass(frozen=True, kw_only=True)
class SignalPasteOther(SignalMix):
    """Cut and paste between rows: the annotated part of another row replaces samples of the row; labels are joined.

    The bird-call detector cuts and pastes between annotated parts in time, CutMix (Yun et al. 2019) in pictures. Of
    shares, the label is the mean of both.
    """

    place: Literal["free", "annotation"] = "free"
    """free: anywhere in the row beside its own annotated part, so that both stay audible; rows without room for it stay
    as they are. For networks that see the whole row. annotation: around the middle of the row's own annotated part,
    moved inwards at the ends of the row, as a sliding window needs; it covers the part, so it is for rows: negative."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.place == "annotation" and self.rows != "negative":
            raise ValueError(
                f"place: annotation covers the row's own call, expected rows: negative, found {self.rows}; set it, or "
                "place: free"
            )

    @property
    def moves_time(self) -> bool:
        """Whether the pasted part may be outside the row's annotated part."""
        return self.place == "free"

    def has_room(self, layout: SignalLayout) -> NDArray[np.bool_]:
        """See `place`."""
        before, after = _room(layout)
        return (before + after > 0) | (self.place == "annotation")

    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Draw where the part begins."""
        length = layout.donated[:, 1] - layout.donated[:, 0]
        if self.place == "annotation":
            first = layout.donated[:, 0] + aligned(layout)
        else:
            before, after = _room(layout)
            place = whole_below(draws.uniform(1)[:, 0], before + after)
            first = np.where(place < before, layout.margin + place, layout.annotated[:, 1] + 1 + place - before)
        columns = (np.full_like(first, 0.5), first, first + length, first * 0 + self.fade_s * layout.rate_hz)
        return np.stack([*columns, first - layout.donated[:, 0]], axis=1)

    def weight(self, own: Tensor) -> Tensor:
        """Replace samples whatever the share in the label."""
        return torch.ones_like(own)


@dataclass(frozen=True, kw_only=True)
class SignalMixUp(SignalMix, BetaMix):
    """MixUp of samples in which the other row is shifted so that both annotated parts have the same middle.

    After mixup (Zhang et al. 2018). Annotations near the ends of a clip are away from the middle of their row. Where
    the shifted row has no samples, the row stays as it is.
    """

    alpha: float = 0.2
    """Parameter of the distribution: see `CutMix`."""

    def draw(self, draws: RowDraws, layout: SignalLayout) -> Floats:
        """Draw the row's own share."""
        shift, fade = aligned(layout), self.fade_s * layout.rate_hz
        first, last = layout.margin + shift, layout.num_samples - 1 - layout.margin + shift
        share = self._own_shares(draws.uniform(1)[:, 0])
        return np.stack([share, first - fade, last + fade, np.full_like(shift, fade), shift], axis=1)

    def weight(self, own: Tensor) -> Tensor:
        """The rest of the row's own share."""
        return 1 - own


def aligned(layout: SignalLayout) -> Floats:
    """Shift [n], samples, of the other row that puts its annotated part around the middle of the row's own, moved
    inwards at the ends of the row."""
    first, last = layout.donated.T
    shift = np.rint(layout.annotated.mean(axis=1) - layout.donated.mean(axis=1))
    end = layout.num_samples - layout.margin - 1
    return np.maximum(np.minimum(shift, end - last), layout.margin - first)


def _room(layout: SignalLayout) -> tuple[Floats, Floats]:
    """Number of places [n] of the other row's part before and after the row's own annotated part."""
    length = layout.donated[:, 1] - layout.donated[:, 0]
    end = layout.num_samples - layout.margin - 1
    before = layout.annotated[:, 0] - layout.margin - length
    return np.maximum(before, 0), np.maximum(end - layout.annotated[:, 1] - length, 0)
