"""The interface of every panel, and what it draws from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec


@dataclass(frozen=True, kw_only=True)
class Window:
    """One label row's part of a recording."""

    recording: Recording
    start: int
    """First EEG sample of the 50-second window."""
    spectrogram_offset_s: float
    """Time, in seconds of the spectrogram's clock, from which its 10 minutes are taken."""


class Panel(ABC):
    """A kind of picture: a frozen dataclass of options, and a pure drawing of one label row.

    Work that all rows of a recording share goes into `prepare`, which is called once a recording.
    """

    @property
    @abstractmethod
    def spec(self) -> PanelSpec:
        """Shape, dtype, codec and meaning of what `draw` gives."""

    def prepare(self, recording: Recording) -> Any:
        """Whatever of the whole recording `draw` needs for each of its rows; by default nothing more."""
        return recording

    @abstractmethod
    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """The panel of one label row: an array of `spec.shape` and `spec.dtype` (bool for bits)."""
