"""The EEG of an opened recording in Kaggle's form: 20 channels, 200 Hz, microvolts, NaN where nothing was recorded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS, RATE_HZ
from hms_dist.imports.montage import Montage, Reference, montage_of
from hms_dist.imports.names import EKG, Pair
from hms_dist.imports.resample import ratio_of, resampled
from hms_dist.imports.source import Source
from hms_dist.imports.units import microvolts_of

RATES_HZ = (50, 100_000)
"""Lowest and highest sampling rate of EEG."""
BLOCK_S = 60
"""Seconds that are read at a time."""
LONGEST_S = 1_800_000
"""Longest recording, from its first sample to its last, gaps included: 20 days."""
LOW_RATE_HZ = 200
"""Below this rate the highest frequencies of pictures are empty."""
_EKG_PLACE = CHANNELS.index(EKG)


@dataclass(frozen=True, kw_only=True)
class SignalOptions:
    """How the channels of files are read."""

    mapped: Mapping[str, str | Pair] = field(default_factory=dict)
    """Labels that rules do not know (`names.parse_map`)."""
    reference: Reference = "as_recorded"
    missing: Literal["fail", "nan"] = "fail"
    unit: Literal["uV", "mV", "V"] | None = None
    """Unit of all channels; None: the one that the file states."""


class Signal:
    """EEG of a recording by sample numbers at 200 Hz, counted from its first sample."""

    def __init__(self, source: Source, options: SignalOptions) -> None:
        """Choose channels, units and rates. Raises UserError without the name of the file."""
        self._source = source
        labels = [channel.label for channel in source.channels]
        self.montage: Montage = montage_of(labels, options.mapped, reference=options.reference, missing=options.missing)
        self.notes = [*source.notes, *self.montage.notes]
        self._factors = self._units(options)
        self._rates = self._groups()
        self.length_s = max(stretch.start_s + stretch.length_s for stretch in source.stretches)
        if self.length_s > LONGEST_S:
            raise UserError(f"expected at most {LONGEST_S} s, found {self.length_s:g} s, gaps included; split the file")
        self.num_samples = ceil(round(self.length_s * RATE_HZ, 6))
        self.closure = Closure()

    @property
    def rates_hz(self) -> list[float]:
        """Sampling rates of the channels that are read, ascending."""
        return sorted({float(rate) for rate in self._rates})

    def read(self, first: int, last: int) -> NDArray[np.float32]:
        """Read samples [first, last), also outside of the recording: float32 [20, samples]."""
        eeg = np.empty((len(CHANNELS), last - first), np.float32)
        step = BLOCK_S * RATE_HZ
        for begin in range(first, last, step):
            end = min(begin + step, last)
            signals = self._signals(begin, end)
            self.closure.add(self.montage.closure_uv(signals))
            with np.errstate(over="ignore"):
                eeg[:, begin - first : end - first] = self.montage.electrodes(signals)
        return eeg

    def _signals(self, first: int, last: int) -> NDArray[np.float64]:
        """Resample the channels that the montage needs [channels, last - first], microvolts."""
        signals = np.full((len(self.montage.channels), last - first), np.nan)
        for number, stretch in enumerate(self._source.stretches):
            origin = round(stretch.start_s * RATE_HZ)
            for rate, rows in self._rates.items():
                channels = [self.montage.channels[row] for row in rows]
                num_inputs, ratio = self._source.num_samples(number, channels[0]), ratio_of(rate)
                begin, end = max(first, origin), min(last, origin + ceil(num_inputs * ratio))
                if begin >= end:
                    continue
                read = partial(self._source.read, number, channels)
                part = resampled(
                    _as_microvolts(read, self._factors[rows]), num_inputs, ratio, begin - origin, end - origin
                )
                signals[rows, begin - first : end - first] = part
        return signals

    def _units(self, options: SignalOptions) -> NDArray[np.float64]:
        """Factors to microvolts, by row of the signals."""
        factors = []
        for row, number in enumerate(self.montage.channels):
            channel = self._source.channels[number]
            factor = microvolts_of(options.unit or channel.dimension)
            if factor is None and self.montage.rows[_EKG_PLACE] == row:
                self.notes.append(f"EKG '{channel.label}' has unit '{channel.dimension}': read as it is")
                factor = 1.0
            if factor is None:
                raise UserError(
                    f"channel '{channel.label}': expected unit uV, mV or V, found '{channel.dimension}'; "
                    "state it by --unit"
                )
            factors.append(factor)
        if options.unit is not None:
            self.notes.append(f"unit {options.unit} by --unit")
        return np.array(factors)

    def _groups(self) -> dict[Fraction, list[int]]:
        """Rows of the signals by sampling rate."""
        groups: dict[Fraction, list[int]] = {}
        for row, number in enumerate(self.montage.channels):
            channel = self._source.channels[number]
            if not RATES_HZ[0] <= channel.rate_hz <= RATES_HZ[1]:
                raise UserError(
                    f"channel '{channel.label}': expected {RATES_HZ[0]} to {RATES_HZ[1]} Hz, found "
                    f"{float(channel.rate_hz):g} Hz; leave the file out"
                )
            groups.setdefault(channel.rate_hz, []).append(row)
        lowest = min(groups)
        if lowest < LOW_RATE_HZ:
            self.notes.append(f"{float(lowest):g} Hz: nothing above {float(lowest) * 0.43:.0f} Hz")
        if len(groups) > 1:
            self.notes.append(f"mixed rates: {', '.join(f'{float(rate):g}' for rate in sorted(groups))} Hz")
        return groups


class Closure:
    """Root mean square by loop of how far the chains of a bipolar file are from closing."""

    def __init__(self) -> None:
        self._squares: NDArray[np.float64] | None = None
        self._counts: NDArray[np.int64] | None = None

    def add(self, loops: NDArray[np.float64]) -> None:
        """Add a block [loops, samples]."""
        if not len(loops):
            return
        valid = np.isfinite(loops)
        squares, counts = np.where(valid, loops, 0.0) ** 2, valid.sum(axis=1)
        self._squares = squares.sum(axis=1) + (0 if self._squares is None else self._squares)
        self._counts = counts + (0 if self._counts is None else self._counts)

    @property
    def worst_uv(self) -> float | None:
        """The largest of all loops; None for a referential file, and for one without loops."""
        if self._squares is None or self._counts is None or not self._counts.any():
            return None
        return float(np.sqrt(self._squares / np.maximum(self._counts, 1)).max())


def _as_microvolts(
    read: Callable[[int, int], NDArray[np.float64]], factors: NDArray[np.float64]
) -> Callable[[int, int], NDArray[np.float64]]:
    if (factors == 1).all():
        return read
    return lambda first, last: read(first, last) * factors[:, None]
