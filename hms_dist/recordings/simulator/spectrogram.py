"""The 10-minute spectrogram of a session, by multitaper, in the layout of Kaggle's files.

The session is rendered again at 50 Hz, which covers the files' 0.59 to 19.92 Hz: the same discharges, blinks and gaps
as in the EEG, and different noise with the same spectrum (a power spectrum does not show the phase of noise).
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from hms_dist.core.signal_format import FREQUENCIES_HZ, NUM_FREQUENCIES, REGIONS
from hms_dist.recordings.simulator import head
from hms_dist.recordings.simulator.artifacts import inside
from hms_dist.recordings.simulator.session import Session, render, spectrogram_rng

Floats = NDArray[np.float64]
RATE_HZ = 50
STEP_S = 2
"""Seconds between rows; row r is at time 2 r + 1."""
WINDOW_S = 4
"""Length of the interval that a row is computed from, centred on the row."""
NUM_FFT = 256
"""Length of the FFT: frequencies are 50 / 256 Hz apart."""
FIRST_BIN = 3
"""Bin of the lowest frequency in the files, 0.59 Hz."""
NUM_TAPERS = 3

COLUMNS = tuple(f"{region}_{hertz:g}" for region in REGIONS for hertz in FREQUENCIES_HZ)
"""Names of the 400 columns after `time`: `LL_0.59` to `RP_19.92`."""


def spectrogram(session: Session, seed: int) -> NDArray[np.float32]:
    """Compute power, microvolt^2 / Hz, float32 [rows, 400]; rows with a gap are NaN, unplugged ones exactly 0."""
    num_rows = session.plan.length_s // STEP_S
    margin_s = (WINDOW_S - STEP_S) / 2
    num_samples = int((num_rows * STEP_S + 2 * margin_s) * RATE_HZ)
    signals = render(session, spectrogram_rng(session, seed), -margin_s, num_samples, RATE_HZ)
    powers = regional_power(signals[:-1]).astype(np.float32)
    fine_s = np.arange(num_rows * STEP_S * 10) / 10
    gaps = inside(session.artifacts.gaps_s, fine_s).reshape(num_rows, -1).any(axis=1)
    powers[gaps] = np.nan
    return powers


def regional_power(signals: Floats) -> Floats:
    """Two-sided power density [rows, 400] of microvolts [19, samples] at 50 Hz: the mean over a chain's differences
    and tapers. `signals.regional_power` explains why the density is two-sided."""
    from scipy.signal.windows import dpss  # half a second

    size = WINDOW_S * RATE_HZ
    tapers = dpss(size, (NUM_TAPERS + 1) / 2, NUM_TAPERS)
    columns = []
    for differences in head.bipolar(signals):
        frames = sliding_window_view(differences, size, axis=1)[:, :: STEP_S * RATE_HZ]
        spectra = np.fft.rfft(frames[:, :, None] * tapers, NUM_FFT)[..., FIRST_BIN : FIRST_BIN + NUM_FREQUENCIES]
        power = (spectra.real**2 + spectra.imag**2).mean(axis=(0, 2))
        columns.append(power / RATE_HZ)
    return np.concatenate(columns, axis=1)
