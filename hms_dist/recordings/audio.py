"""Recordings of audio: one channel of samples at the rate of the data set."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class AudioRecording:
    """A recording of audio. Compared and hashed by identity."""

    name: str
    """Identifier of the recording: the file's name without its ending."""
    samples: NDArray[np.float32]
    """Samples [1, n], full scale 1."""
    rate_hz: int
    """Sampling rate."""

    def cut(self, start: int, stop: int) -> NDArray[np.float32]:
        """Samples from `start` to before `stop`, float32 [1, stop - start]; zeros beyond the recording's ends."""
        found = np.zeros((1, stop - start), np.float32)
        first, last = max(start, 0), min(stop, self.samples.shape[1])
        if first < last:
            found[:, first - start : last - start] = self.samples[:, first:last]
        return found
