"""The interface of all panels, and their input."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hms_dist.datasets import AUDIO_RATE_HZ, Dataset, Signal
from hms_dist.recordings.audio import AudioRecording
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


@dataclass(frozen=True, kw_only=True)
class AudioWindow:
    """Position of one label row in a recording of audio."""

    recording: AudioRecording
    start: int
    """First sample of the window."""
    num_samples: int
    """Samples of the window."""

    def samples(self, margin: int = 0) -> NDArray[np.float32]:
        """Samples of the window and of `margin` samples on both sides, float32 [1, num_samples + 2 margin]; zeros
        beyond the recording's ends."""
        return self.recording.cut(self.start - margin, self.start + self.num_samples + margin)


class Panel(ABC):
    """A kind of picture: a frozen dataclass of options that draws one label row as a pure function.

    Work shared by all rows of a recording is done in `prepare`, which is called once per recording.
    """

    signal: ClassVar[Signal] = "eeg"
    """Kind of the recordings that it is drawn from."""

    def fault(self, dataset: Dataset) -> str | None:
        """Return why rows of `dataset` cannot be drawn; None if they can."""
        if dataset.signal != self.signal:
            return f"is drawn from {self.signal}, data set {dataset.name} is {dataset.signal}; choose another panel"
        return None

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


@dataclass(frozen=True, kw_only=True)
class AudioPanel(Panel):
    """A panel of audio: `draw_samples` gets the samples of a row's window, at the rate and length of its options."""

    signal: ClassVar[Signal] = "audio"

    rate_hz: int = AUDIO_RATE_HZ
    """Sampling rate of the recordings, that of the data set."""
    window_s: float = 10.0
    """Length of a row, seconds, that of the data set."""

    @property
    def margin_samples(self) -> int:
        """Samples that the panel needs on each side of the window; zeros beyond the recording's ends."""
        return 0

    def fault(self, dataset: Dataset) -> str | None:
        """Return why rows of `dataset` cannot be drawn: another signal, rate or length."""
        for name in ("rate_hz", "window_s"):
            if dataset.signal == self.signal and getattr(dataset, name) != getattr(self, name):
                found = f"{name} {getattr(self, name):g}, data set {dataset.name} has {getattr(dataset, name):g}"
                return f"is drawn with {found}; give the panel that {name}"
        return super().fault(dataset)

    def draw(self, prepared: Any, window: Any) -> NDArray[np.generic]:
        """Draw the panel of one label row, an `AudioWindow`."""
        del prepared
        return self.draw_samples(window.samples(self.margin_samples))

    @abstractmethod
    def draw_samples(self, samples: NDArray[np.float32]) -> NDArray[np.generic]:
        """Draw the panel from float32 [1, window_s * rate_hz + 2 margin_samples], full scale 1: an array of
        `spec.shape` and `spec.dtype`."""
