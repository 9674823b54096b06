"""The interface of all panels, and their input."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.recordings.reader import Recording
from hms_dist.shards.schema import PanelSpec


@dataclass(frozen=True, kw_only=True)
class Window:
    """Position of one label row in a recording."""

    recording: Recording
    start: int
    """First EEG sample of the 50-second window."""
    spectrogram_offset_s: float
    """Start of the row's 10 minutes, in seconds of the spectrogram's time column."""


class Panel(ABC):
    """A kind of picture: a frozen dataclass of options that draws one label row as a pure function.

    Work shared by all rows of a recording is done in `prepare`, which is called once per recording.
    """

    @property
    @abstractmethod
    def spec(self) -> PanelSpec:
        """Shape, dtype, codec and meaning of the arrays that `draw` returns."""

    def prepare(self, recording: Recording) -> Any:
        """Compute what `draw` needs of the whole recording; by default the recording itself."""
        return recording

    @abstractmethod
    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row: an array of `spec.shape` and `spec.dtype` (bool for bits)."""
