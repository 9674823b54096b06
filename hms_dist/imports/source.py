"""The interface of an opened recording of any format."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Channel:
    """A channel as described in the file."""

    label: str
    dimension: str
    """Unit in the file, as written there."""
    rate_hz: Fraction


@dataclass(frozen=True)
class Stretch:
    """A part of a file without a gap."""

    start_s: float
    """Seconds after the first sample of the file."""
    length_s: float


@dataclass(frozen=True, order=True)
class Event:
    """A labelled interval of a recording; seconds after its first sample."""

    start_s: float
    end_s: float
    text: str


class Source(Protocol):
    """An opened recording. Samples are read in blocks, so a file of any length takes the same memory."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """All channels that hold signals, in the order of the file."""

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """Contiguous parts, ascending and without overlap."""

    @property
    def events(self) -> tuple[Event, ...]:
        """Annotations in the file."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Facts about the file that the report lists."""

    def num_samples(self, stretch: int, channel: int) -> int:
        """Number of samples of a channel in a stretch."""

    def read(self, stretch: int, channels: Sequence[int], first: int, last: int) -> NDArray[np.float64]:
        """Read samples [first, last) of channels of one rate, in the unit of the file: [channels, samples]."""

    def close(self) -> None:
        """Close the file."""
