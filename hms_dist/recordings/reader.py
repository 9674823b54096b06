"""Kaggle's parquet files -> `Recording`. Each file is read once for all rows that use it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 200
"""Sampling rate of every EEG."""
WINDOW_SAMPLES = 50 * RATE_HZ
"""Samples of a label row's window: 50 seconds."""
CHANNELS = (
    "Fp1", "F3", "C3", "P3", "F7", "T3", "T5", "O1", "Fz", "Cz",
    "Pz", "Fp2", "F4", "C4", "P4", "F8", "T4", "T6", "O2", "EKG",
)  # fmt: skip
"""Channels in the order of Kaggle's files, which is the order of `Recording.eeg`."""
REGIONS = ("LL", "RL", "LP", "RP")
"""Regions of the 10-minute spectrogram in the order of Kaggle's files: left/right lateral/parasagittal."""
NUM_FREQUENCIES = 100
"""Frequencies a region: 0.59 to 19.92 Hz."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One EEG and the 10-minute spectrogram that goes with it."""

    eeg_id: int
    eeg: NDArray[np.float32]
    """Microvolts [samples, 20], columns as CHANNELS, 200 Hz; NaN where nothing was recorded."""
    spectrogram_id: int
    spectrogram: NDArray[np.float32]
    """Power [rows, 4, 100], regions as REGIONS, frequencies rising; NaN for gaps."""
    spectrogram_time_s: NDArray[np.float64]
    """Time of each spectrogram row, seconds, rising."""
