"""Draw a panel of your own: `python examples/own_panel.py DATA EEG_ID`; docs/plugins.md renders one."""

import argparse
from dataclasses import dataclass

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
        """The 19 channels of the EEG in order, without EKG."""
        axes = ("region", "channel", "time")
        return PanelSpec(shape=(1, 19, 50), dtype="float16", codec="npy", axes=axes, unit="uV", columns_s=(0.5, 49.5))

    def draw(self, prepared: object, window: Window) -> np.ndarray:
        """Draw one label row; gaps count as 0."""
        eeg = np.nan_to_num(window.recording.eeg[window.start : window.start + 10_000, :19])
        lengths = np.abs(np.diff(eeg, axis=0, prepend=eeg[:1])).reshape(50, 200, 19).sum(axis=1)
        return lengths.T[None].clip(max=65504).astype(np.float16)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("eeg_id", type=int)
    given = parser.parse_args()
    try:
        print(hms_dist.draw(hms_dist.read_recording(given.data, eeg_id=given.eeg_id), LineLength()).round(0))
    except hms_dist.UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
