"""A panel of one's own: from this folder, `hms-dist render --plugins own_panel ...`; or draw it as below."""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

import hms_dist
from hms_dist.panels.panel import Panel, Window
from hms_dist.shards.schema import PanelSpec

__version__ = "1.0"


@dataclass(frozen=True, kw_only=True)
class LineLength(Panel):
    """Sum of absolute differences of each EEG channel in each second: float16 [1, 19 channels, 50 s], microvolts."""

    @property
    def spec(self) -> PanelSpec:
        """Channels in the order of the recording, without EKG."""
        shape, axes = (1, 19, 50), ("region", "channel", "time")
        return PanelSpec(shape=shape, dtype="float16", codec="npy", axes=axes, unit="uV", columns_s=(0.5, 49.5))

    def draw(self, prepared: Any, window: Window) -> np.ndarray:
        """Draw one label row; gaps count as 0."""
        eeg = np.nan_to_num(window.recording.eeg[window.start : window.start + 10_000, :19])
        steps = np.abs(np.diff(eeg, axis=0, prepend=eeg[:1]))
        return steps.reshape(50, 200, 19).sum(axis=1).T[None].clip(max=65504).astype(np.float16)


if __name__ == "__main__":
    recording = hms_dist.read_recording(sys.argv[1], eeg_id=int(sys.argv[2]))
    print(hms_dist.draw(recording, LineLength()).round(0))
