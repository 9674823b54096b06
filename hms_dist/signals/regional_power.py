"""The 10-minute spectrogram of Kaggle's files, computed from an EEG.

Multitaper power of the four chains: windows of 4 s every 2 s, centred on 1, 3, 5, ... seconds, DPSS tapers of time
half-bandwidth 2, three of them, 1,024 points at 200 Hz. The method was found on the 20 published spectrograms whose
noise it reproduces: neighbouring bins of their noise correlate by 0.66, 0.42 and 0.22 (this method 0.69, 0.45 and 0.20;
windows of 2 s 0.87, 0.69 and 0.59).

The density is two-sided, |X|^2 / rate. The published spectrograms have no EEG beside them. Compared with EEG of the
same classes of other patients, two-sided power is 0.37 +- 0.37 nat above theirs, one-sided power 1.07 +- 0.37 (medians
of 20 recordings each, five classes): one standard error against three. A paired file would settle it.
"""

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import NUM_FREQUENCIES, RATE_HZ, REGIONS, ROW_S
from hms_dist.signals.montage import CHAINS, differences
from hms_dist.signals.multitaper import multitaper_density

WINDOW_S = 4
"""Length of the interval that a row is computed from, centred on the row."""
MARGIN_S = 1
"""Seconds of EEG that the computation needs before the first and after the last of the 2-second rows."""
FIRST_BIN = 3
"""Bin of the lowest frequency in the files, 0.59 Hz."""
_ROWS = 100
"""Rows that are computed at a time."""


def regional_power(eeg: NDArray[np.floating]) -> NDArray[np.float32]:
    """Compute power, microvolt^2 / Hz, of `eeg` [samples, 20] at 200 Hz: float32 [rows, 4 regions, 100 frequencies].

    Row r is computed from seconds [2 r, 2 r + 4) of `eeg` and shown at their centre. A difference with a gap in that
    interval is left out; NaN where a region has no other.
    """
    hop, size = int(ROW_S) * RATE_HZ, WINDOW_S * RATE_HZ
    num_rows = max(0, (len(eeg) - size) // hop + 1)
    power = np.full((num_rows, len(REGIONS), NUM_FREQUENCIES), np.nan, np.float32)
    pairs = [pair for region in REGIONS for pair in CHAINS[region]]
    for first in range(0, num_rows, _ROWS):
        last = min(first + _ROWS, num_rows)
        signals = differences(eeg[first * hop : (last - 1) * hop + size], pairs)
        valid = np.isfinite(signals)
        density = multitaper_density(
            np.where(valid, signals, 0.0), rate_hz=RATE_HZ, window_samples=size, hop_samples=hop, fft_samples=1024,
            time_half_bandwidth=2, num_tapers=3, num_bins=FIRST_BIN + NUM_FREQUENCIES,
        )[:, FIRST_BIN:]  # fmt: skip
        whole = np.lib.stride_tricks.sliding_window_view(valid, size, axis=1)[:, ::hop].all(axis=-1)
        weights = whole.reshape(len(REGIONS), -1, last - first).astype(np.float64)
        sums = np.einsum("rdt,rdft->trf", weights, density.reshape(*weights.shape[:2], *density.shape[1:]))
        with np.errstate(invalid="ignore"):  # no difference: 0 / 0
            power[first:last] = sums / weights.sum(axis=1).T[..., None] / 2  # one-sided to two-sided
    return power
