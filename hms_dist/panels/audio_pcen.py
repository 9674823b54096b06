"""Per-channel energy normalisation of the mel power of audio (the bird-call detector's pictures), as librosa's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.panels.log_mel import power_of
from hms_dist.panels.options import AUDIO, PcenOptions
from hms_dist.panels.panel import AudioPanel
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.energy import normalise_energy


@dataclass(frozen=True, kw_only=True)
class AudioPcen(PcenOptions, AudioPanel):
    """(S / (epsilon + M)^gain + bias)^power - bias^power of mel power S, float16 [1, num_mels rows ascending, frames].

    0 for silence, 0.2 to 0.5 for a steady background, 1 and more for an onset.
    """

    @property
    def spec(self) -> PanelSpec:
        """Stored raw, as other float16 panels."""
        return self.mel_spec("normalised energy", dtype="float16", regions=AUDIO)

    def draw_samples(self, samples: NDArray[np.float32]) -> NDArray[np.float16]:
        """Draw the panel from the samples of a row [1, n]."""
        return self.normalised(samples).astype(np.float16)

    def normalised(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the panel of `samples` [1, n] before it is rounded: float32 [1, num_mels, frames]."""
        return np.stack(
            [
                normalise_energy(
                    power,
                    scale=self.scale,
                    time_constant_frames=self.time_constant_frames,
                    start=self.start,
                    **self.compression,
                )
                for power in power_of(samples, self)
            ]
        )
