"""Kaggle's 10-minute spectrogram, stored unnormalised as float16 natural-log power.

Gaps are NaN and zero power is -inf, because published systems treat these differently; normalisation is a step of the
canvas.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.signal_format import NUM_FREQUENCIES, REGIONS
from hms_dist.panels.panel import Panel, Window
from hms_dist.shards.schema import PanelSpec

NUM_ROWS = 300
"""Spectrogram rows of a sample: 10 minutes, 2 seconds each."""
SECONDS_A_ROW = 2.0
"""Length of the interval that a spectrogram row covers, seconds."""
FIRST_BIN = 3
"""Kaggle's first column is bin 3 of a 1024-sample transform at 200 Hz."""


@dataclass(frozen=True, kw_only=True)
class KaggleSpectrogram(Panel):
    """Natural logarithm of power, float16 [4 regions, 100 frequencies ascending, 300 rows of 2 s].

    The rows are the first 300 whose time is at or after the label's spectrogram offset. NaN: a gap, a row that the file
    does not have, or a negative or infinite power. -inf: zero power.
    """

    @property
    def spec(self) -> PanelSpec:
        """Regions in the files' order; stored raw, because zstd would save 11 % and double the decoding time."""
        return PanelSpec(
            shape=(len(REGIONS), NUM_FREQUENCIES, NUM_ROWS),
            dtype="float16",
            codec="npy",
            axes=("region", "frequency", "time"),
            unit="ln(power)",
            regions=REGIONS,
            rows_hz=_column_names_hz(),
            columns_s=(SECONDS_A_ROW / 2, (NUM_ROWS - 0.5) * SECONDS_A_ROW),
        )

    def draw(self, prepared: Any, window: Window) -> NDArray[np.generic]:
        """Draw the panel of one label row; `prepared` is not used."""
        recording = window.recording
        first = int(np.searchsorted(recording.spectrogram_time_s, window.spectrogram_offset_s))
        power = recording.spectrogram[first : first + NUM_ROWS]
        return log_power(power)


def log_power(power: NDArray[np.floating]) -> NDArray[np.float16]:
    """Convert `power` [rows up to 300, regions, frequencies], any unit, to float16 ln power [regions, frequencies,
    300]."""
    panel = np.full((*power.shape[1:], NUM_ROWS), np.nan, np.float16)
    with np.errstate(divide="ignore", invalid="ignore"):  # negative power: NaN
        values = np.log(power)
    values[values == np.inf] = np.nan
    panel[..., : len(power)] = values.transpose(1, 2, 0)
    return panel


def _column_names_hz() -> tuple[float, ...]:
    """0.59, 0.78, ... 19.92: the bins' frequencies rounded half up to two decimals, as the columns are named."""
    hundredths = np.floor((np.arange(NUM_FREQUENCIES) + FIRST_BIN) * 200 / 1024 * 100 + 0.5)
    return tuple((hundredths / 100).tolist())
