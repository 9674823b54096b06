"""The samples of a row of audio, 16 bits, with a margin on both sides: a canvas draws its pictures from them.

So training can shift, reverse and mix in time before the picture is drawn.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.panels.options import AUDIO
from hms_dist.panels.panel import AudioPanel
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.mel_power import FULL_SCALE


@dataclass(frozen=True, kw_only=True)
class Waveform(AudioPanel):
    """Samples, int16 [1, margin + row + margin]; lossless for files of 16 bits at the rate of the data set."""

    margin_s: float = 0.5
    """Length on each side of the row, seconds: the largest shift in time; zeros beyond the clip's ends."""
    codec: Literal["npy", "npy.zst"] = "npy"
    """Raw (1.06 MB per row of 10 s), or compressed with zstd, which saves little of recorded noise and much of digital
    silence."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin_s <= self.window_s:
            raise ValueError(f"margin_s: must be from 0 to window_s ({self.window_s:g}), found {self.margin_s}")

    @property
    def margin_samples(self) -> int:
        """Samples on each side of the row."""
        return round(self.margin_s * self.rate_hz)

    @property
    def spec(self) -> PanelSpec:
        """-32768 stands for -1."""
        num_samples = round(self.window_s * self.rate_hz) + 2 * self.margin_samples
        first_s = -self.margin_samples / self.rate_hz
        return PanelSpec(
            shape=(len(AUDIO), num_samples),
            dtype="int16",
            codec=self.codec,
            axes=("channel", "time"),
            unit="full scale",
            regions=AUDIO,
            value_range=(-1.0, 1.0),
            columns_s=(first_s, first_s + (num_samples - 1) / self.rate_hz),
        )

    def draw_samples(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        """Round the samples of a row with its margins to 16 bits; louder ones are clipped."""
        return np.rint(samples * FULL_SCALE).clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
