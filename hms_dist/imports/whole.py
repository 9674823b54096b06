"""A whole recording, read into memory."""

from pathlib import Path

import numpy as np

from hms_dist.core.signal_format import RATE_HZ, ROW_S, WINDOW_SAMPLES
from hms_dist.imports.open_recording import opened
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.signal import Signal
from hms_dist.imports.write_files import PAD_ROWS
from hms_dist.recordings.reader import Recording
from hms_dist.signals.regional_power import MARGIN_S, regional_power


def read_whole(path: Path, options: ReadingOptions) -> Recording:
    """Read a recording, with a 10-minute spectrogram that extends 5 minutes beyond both ends, as import writes it.

    The spectrogram's time is such that the 10 minutes around the middle of a 50-second window begin at the window's
    own start. Takes about 1 GB of memory for 8 hours. Raises UserError naming the file.
    """
    with opened(path, options.truncated) as source:
        signal = Signal(source, options.signal_options)
        num_rows = -(-signal.num_samples // (int(ROW_S) * RATE_HZ))
        margin = MARGIN_S * RATE_HZ
        eeg = signal.read(-margin, num_rows * int(ROW_S) * RATE_HZ + margin)
    gap = ((PAD_ROWS, PAD_ROWS), (0, 0), (0, 0))
    power = np.pad(regional_power(eeg.T), gap, constant_values=np.nan)
    return Recording(
        eeg_id=0, eeg=eeg[:, margin : margin + signal.num_samples].T, spectrogram_id=0, spectrogram=power,
        spectrogram_time_s=np.arange(len(power), dtype=np.float64) * ROW_S + ROW_S / 2 - WINDOW_SAMPLES / RATE_HZ / 2,
    )  # fmt: skip
