"""One window of a recording, read without importing the rest."""

from pathlib import Path

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import RATE_HZ, ROW_S
from hms_dist.imports.open_recording import opened
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.signal import Signal
from hms_dist.imports.write_files import CONTEXT_S, HALF
from hms_dist.recordings.reader import Recording
from hms_dist.signals.regional_power import MARGIN_S, regional_power

MARGIN = 60 * RATE_HZ
"""Samples of EEG before and after the window, for the start-up of filters."""


def read_window(path: Path, at_s: float, options: ReadingOptions) -> tuple[Recording, int]:
    """Read the EEG of the 50 s and the spectrogram of the 10 minutes around `at_s`, seconds.

    Returns them as a recording, and the first sample of the 50 s in its EEG.

    NaN outside of the recording. Raises UserError naming the file, also for a time after its end.
    """
    with opened(path, options.truncated) as source:
        signal = Signal(source, options.signal_options)
        if not 0 <= at_s <= signal.length_s:
            raise UserError(f"at: expected 0 to {signal.length_s:g} s, the length of the recording, found {at_s:g} s")
        middle = round(at_s * RATE_HZ)
        context = signal.read(middle - (CONTEXT_S + MARGIN_S) * RATE_HZ, middle + (CONTEXT_S + MARGIN_S) * RATE_HZ)
        eeg = signal.read(middle - HALF - MARGIN, middle + HALF + MARGIN)
    power = regional_power(context.T)
    recording = Recording(
        eeg_id=0, eeg=eeg.T, spectrogram_id=0, spectrogram=power,
        spectrogram_time_s=np.arange(len(power), dtype=np.float64) * ROW_S + ROW_S / 2,
    )  # fmt: skip
    return recording, MARGIN
