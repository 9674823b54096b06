"""Log-mel spectrograms of audio, stored unnormalised as float16 natural-log power, as librosa's mel power gives."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.panels.options import AUDIO, LogMelOptions, MelFrames
from hms_dist.panels.panel import AudioPanel
from hms_dist.shards.schema import PanelSpec
from hms_dist.signals.mel_power import mel_power, padded


@dataclass(frozen=True, kw_only=True)
class LogMel(LogMelOptions, AudioPanel):
    """Natural logarithm of mel power, float16 [1, num_mels rows ascending, frames]; full scale is 1."""

    @property
    def spec(self) -> PanelSpec:
        """Stored raw, as other float16 panels."""
        return self.mel_spec("ln(power)", dtype="float16", regions=AUDIO)

    def draw_samples(self, samples: NDArray[np.float32]) -> NDArray[np.float16]:
        """Draw the panel from the samples of a row [1, n]."""
        return self.log_power(samples).astype(np.float16)

    def log_power(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the panel of `samples` [1, n] before it is rounded: float32 [1, num_mels, frames]."""
        power = power_of(samples, self)
        np.maximum(power, np.float32(self.least), out=power)
        return np.log(power, out=power)


def power_of(samples: NDArray[np.float32], mel: MelFrames) -> NDArray[np.float32]:
    """Compute the mel power of `samples` [channels, n], float32 [channels, num_mels, num_frames].

    Samples are rounded to 16 bits, a no-op for files of 16 bits at the rate of the data set: so a picture equals one
    that a canvas draws from the waveform panel, also in rows far below the noise of 16 bits.
    """
    return np.stack(
        [
            mel_power(
                padded(channel, mel.fft_samples, mel.padding),
                window=mel.window,
                hop_samples=mel.hop_samples,
                num_frames=mel.num_frames,
                slopes=mel.slopes,
            )
            for channel in samples
        ]
    )
