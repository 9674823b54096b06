"""MATLAB files with one segment: the published ones of SPaRCNet (IIIC), and others of their form.

A matrix of 19 or 20 channels by samples, in microvolts. Without names the channels are in Kaggle's order, without a
rate they have 200 Hz; the report lists both assumptions.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.signal_format import CHANNELS, RATE_HZ
from hms_dist.imports.source import Channel, Event, Stretch

MOST_BYTES = 1 << 30
"""Most bytes of the file, and of the values that it announces: it is read whole."""
_RATES = ("fs", "srate", "sfreq", "rate", "samplingrate", "sampling_rate", "fs_hz")
_NAMES = ("channels", "channel_names", "ch_names", "labels", "chan", "montage")


class MatFile:
    """A MATLAB file with one matrix of EEG."""

    def __init__(self, path: Path) -> None:
        """Read a file. Raises UserError without the name of the file."""
        from scipy.io import loadmat, whosmat

        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"expected at most {MOST_BYTES} bytes, found {path.stat().st_size}; export it as EDF")
        try:
            listed = whosmat(path)
            name = _matrix_of(listed)
            wanted = [other for other, shape, _ in listed if other == name or _is_fact(other, shape)]
            values = loadmat(path, variable_names=wanted)
        except UserError:
            raise
        except NotImplementedError as error:
            raise UserError("is of MATLAB 7.3 (HDF5); save it with -v7") from error
        except Exception as error:  # scipy passes on what its decoders raise
            raise UserError(f"not a readable MATLAB file ({first_line(error)}); save it again with -v7") from error
        signals = np.asarray(values[name], np.float64)
        self._signals = signals if signals.shape[0] in _CHANNEL_COUNTS else signals.T
        names = next((_texts(values[key]) for key in values if key.lower() in _NAMES), [])
        rate = next((values[key] for key in values if key.lower() in _RATES), None)
        notes = []
        if len(names) != len(self._signals):
            names = list(CHANNELS[: len(self._signals)])
            notes.append("no channel names: Kaggle's order assumed")
        if rate is None:
            notes.append(f"no sampling rate: {RATE_HZ} Hz assumed")
        self._rate = Fraction(RATE_HZ) if rate is None else _rate(rate)
        self.channels = tuple(Channel(label, "uV", self._rate) for label in names)
        self.stretches = (Stretch(0.0, float(self._signals.shape[1] / self._rate)),)
        self.events: tuple[Event, ...] = ()
        self.notes = (*notes, "no unit: microvolts assumed")

    def close(self) -> None:
        """Nothing is open."""

    def num_samples(self, stretch: int, channel: int) -> int:
        """Number of samples of a channel."""
        return int(self._signals.shape[1])

    def read(self, stretch: int, channels: Sequence[int], first: int, last: int) -> NDArray[np.float64]:
        """Return samples [first, last) of channels [channels, samples]; infinite values become NaN."""
        part = self._signals[list(channels), first:last]
        return np.where(np.isfinite(part), part, np.nan)


_CHANNEL_COUNTS = (len(CHANNELS) - 1, len(CHANNELS))


def _matrix_of(listed: Sequence[tuple[str, tuple[int, ...], str]]) -> str:
    """Return the name of the matrix of EEG, from the list of variables, before anything is read."""
    numeric = ("double", "single", "int16", "int32")
    matrices = [
        (name, shape)
        for name, shape, kind in listed
        if kind in numeric and len(shape) == 2 and min(shape) in _CHANNEL_COUNTS and max(shape) > len(CHANNELS)
    ]
    if len(matrices) != 1:
        found = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape, _ in listed[:10]) or "no variables"
        raise UserError(f"expected one matrix of 19 or 20 channels by samples, found {found}; save that matrix alone")
    name, shape = matrices[0]
    if shape[0] * shape[1] * 8 > MOST_BYTES:
        raise UserError(f"{name}: expected at most {MOST_BYTES} bytes of values, found {shape[0]} x {shape[1]} numbers")
    return name


def _is_fact(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a variable is small and named like a rate or a list of channels."""
    return name.lower() in (*_RATES, *_NAMES) and int(np.prod(shape, dtype=object)) <= 64 * len(CHANNELS)


def _texts(values: Any) -> list[str]:
    return [str(np.ravel(item)[0]).strip() if np.size(item) else "" for item in np.ravel(values)]


def _rate(value: Any) -> Fraction:
    try:
        rate = Fraction(float(np.ravel(value)[0])).limit_denominator(100_000)
    except (ValueError, TypeError, OverflowError, IndexError):
        rate = Fraction(0)
    if rate <= 0:
        raise UserError(f"sampling rate: expected hertz, found {' '.join(str(value).split())[:40]}; correct it")
    return rate
