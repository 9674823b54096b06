"""Butterworth filters of an EEG, as second-order sections in float64.

Recursive filters in float32 are wrong by 1e-2 microvolt, and the transfer-function form of a tenth-order
filter loses digits too; sections in float64 agree with the exact answer to 1e-6 microvolt.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.jit import jit_any_order
from hms_dist.core.signal_format import RATE_HZ
from hms_dist.signals.gaps import fill_gaps

LANES = 8
"""Signals are padded to a multiple of this, the widest float64 vector; a remainder would be processed one by one."""


@dataclass(frozen=True, kw_only=True)
class FilterChain:
    """Band-stops against mains hum, then a band-pass, all Butterworth (defaults of the 16th place)."""

    order: int = 5
    """Order of each filter's prototype; a band filter has twice as many poles."""
    band_stops_hz: tuple[tuple[float, float], ...] = ((59.0, 61.0),)
    """Edges of each removed band, hertz; [[49, 51], [59, 61]] removes the mains hum of any country. Empty: none."""
    band_pass_hz: tuple[float, float] | None = (1.0, 70.0)
    """Edges of the kept band, hertz. None: no band-pass."""
    zero_phase: bool = True
    """Filter forward and backward: no delay, twice the attenuation. False: causal, starting from rest."""

    def __post_init__(self) -> None:
        if not 1 <= self.order <= 10:
            raise ValueError(f"order: expected 1 to 10, found {self.order}; steeper filters ring for seconds")
        for name, _, band in self.bands:
            if not 0 < band[0] < band[1] < RATE_HZ / 2:
                raise ValueError(f"{name}: expected 0 < low < high < {RATE_HZ // 2} Hz, found {band[0]}, {band[1]}")

    @property
    def bands(self) -> list[tuple[str, str, tuple[float, float]]]:
        """Yield each filter of the cascade: its option, scipy's name of its kind, its edges in hertz."""
        stops = [("band_stops_hz", "bandstop", band) for band in self.band_stops_hz]
        return stops if self.band_pass_hz is None else [*stops, ("band_pass_hz", "bandpass", self.band_pass_hz)]


def apply(chain: FilterChain, signals: NDArray[np.floating]) -> NDArray[np.float64]:
    """Filter `signals` [signals, samples] at 200 Hz along the samples; float64 of the same shape and unit.

    Non-finite values become 0 before filtering, because a recursive filter would spread them over all later samples.
    Zero-phase filtering extends the ends by odd reflection and starts from the steady state of the first sample, as
    scipy's `sosfiltfilt` does. In memory the signals of one sample are adjacent, in rows of LANES.
    """
    filled = fill_gaps(np.asarray(signals, np.float64), "zero")
    sections = sections_of(chain)
    num_signals, num_samples = signals.shape
    if not (len(sections) and signals.size):
        return filled.copy()
    padding = min(3 * (2 * len(sections) + 1), num_samples - 1) if chain.zero_phase else 0
    # Signals are interleaved so that they are filtered together; zeros fill the last vector.
    num_lanes = -(-num_signals // LANES) * LANES
    lanes = np.empty((num_samples + 2 * padding, num_lanes))
    lanes[padding : padding + num_samples, :num_signals] = filled.T
    lanes[:, num_signals:] = 0
    if chain.zero_phase:
        first, last = lanes[padding], lanes[-1 - padding]
        lanes[:padding] = 2 * first - lanes[2 * padding : padding : -1]
        lanes[num_samples + padding :] = 2 * last - lanes[num_samples + padding - 2 : num_samples - 2 : -1]
        for backward in (False, True):
            start = lanes[-1 if backward else 0]
            _filter_in_place(sections, _steady_state(chain) * start, lanes, backward)
    else:
        _filter_in_place(sections, np.zeros((len(sections), 2, num_lanes)), lanes, False)
    return lanes[padding : padding + num_samples, :num_signals].T


@jit_any_order
def _filter_in_place(
    sections: NDArray[np.float64], state: NDArray[np.float64], lanes: NDArray[np.float64], backward: bool
) -> None:
    """Run the cascade (direct form II transposed) over `lanes` [samples, signals].

    `state` [sections, 2, signals] is the initial state, and is overwritten.
    """
    num_samples, num_lanes = lanes.shape
    first, step = (num_samples - 1, -1) if backward else (0, 1)
    # Four samples at a time, so that a section's state is loaded and stored once for all of them.
    for k in range(0, num_samples - 3, 4):
        row0, row1 = first + step * k, first + step * (k + 1)
        row2, row3 = first + step * (k + 2), first + step * (k + 3)
        for section in range(len(sections)):
            b0, b1, b2, _, a1, a2 = sections[section]
            for lane in range(num_lanes):
                s, t = state[section, 0, lane], state[section, 1, lane]
                x0, x1, x2, x3 = lanes[row0, lane], lanes[row1, lane], lanes[row2, lane], lanes[row3, lane]
                y0 = b0 * x0 + s
                s, t = b1 * x0 - a1 * y0 + t, b2 * x0 - a2 * y0
                y1 = b0 * x1 + s
                s, t = b1 * x1 - a1 * y1 + t, b2 * x1 - a2 * y1
                y2 = b0 * x2 + s
                s, t = b1 * x2 - a1 * y2 + t, b2 * x2 - a2 * y2
                y3 = b0 * x3 + s
                s, t = b1 * x3 - a1 * y3 + t, b2 * x3 - a2 * y3
                lanes[row0, lane], lanes[row1, lane], lanes[row2, lane], lanes[row3, lane] = y0, y1, y2, y3
                state[section, 0, lane], state[section, 1, lane] = s, t
    for k in range(num_samples - num_samples % 4, num_samples):
        row = first + step * k
        for section in range(len(sections)):
            b0, b1, b2, _, a1, a2 = sections[section]
            for lane in range(num_lanes):
                x0 = lanes[row, lane]
                y0 = b0 * x0 + state[section, 0, lane]
                state[section, 0, lane] = b1 * x0 - a1 * y0 + state[section, 1, lane]
                state[section, 1, lane] = b2 * x0 - a2 * y0
                lanes[row, lane] = y0


@cache
def sections_of(chain: FilterChain) -> NDArray[np.float64]:
    """Return the chain as one cascade of second-order sections, float64 [sections, 6] (scipy's `sos` layout)."""
    from scipy import signal  # imported late: takes 0.9 s, which reading a configuration does not need

    designed = [signal.butter(chain.order, band, kind, fs=RATE_HZ, output="sos") for _, kind, band in chain.bands]
    return np.concatenate([np.empty((0, 6)), *designed])


@cache
def _steady_state(chain: FilterChain) -> NDArray[np.float64]:
    """State of each section after a constant input of 1, float64 [sections, 2, 1]."""
    from scipy import signal

    return np.asarray(signal.sosfilt_zi(sections_of(chain)), np.float64)[:, :, None]
