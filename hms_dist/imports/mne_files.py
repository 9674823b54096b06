"""BrainVision, FIF, EEGLAB and other files, read by mne (extra `mne`)."""

import warnings
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError, first_line
from hms_dist.imports.brainvision import SEGMENT, Segment, files_of, read_segments
from hms_dist.imports.source import Channel, Event, Stretch

HEADER_SUFFIX = ".vhdr"
"""Ending of the names of BrainVision headers."""
SUFFIXES = (HEADER_SUFFIX, ".fif", ".set", ".cnt", ".gdf", ".nxe", ".lay")
"""Names of the files that mne opens here. It reads more; convert those to EDF."""
_VOLTS = ("eeg", "eog", "ecg", "emg", "bio", "misc", "ref_meg")
_GAP = "BAD_ACQ_SKIP"
"""Annotation of mne: nothing was recorded."""


class MneFile:
    """A file that mne reads. Values are in volts, as mne returns them."""

    def __init__(self, path: Path) -> None:
        """Open a file. Raises UserError without the name of the file."""
        try:
            import mne
        except ImportError as error:
            raise UserError(f"{path.suffix} files are read by mne: pip install 'hms-dist[mne]'") from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._raw: Any = mne.io.read_raw(path, preload=False, verbose="error")
                kinds = self._raw.get_channel_types()
        except Exception as error:  # each reader of mne raises its own
            raise UserError(f"mne cannot read it ({first_line(error)}); export it again, or as EDF") from error
        rate = Fraction(float(self._raw.info["sfreq"])).limit_denominator(100_000)
        self._picks = [number for number, kind in enumerate(kinds) if kind in _VOLTS]
        if not self._picks:
            raise UserError(f"expected channels of EEG, found {', '.join(sorted(set(kinds))) or 'none'}")
        self.channels = tuple(Channel(self._raw.ch_names[number], "V", rate) for number in self._picks)
        self._rate = rate
        self._segments: tuple[Segment, ...] = (Segment(0, 0.0),)
        if path.suffix.lower() == HEADER_SUFFIX:
            self._segments = read_segments(path, float(rate), self._raw.n_times)
        marks = [
            (float(at), float(length), str(text))
            for at, length, text in zip(
                self._raw.annotations.onset - self._raw.first_time * (self._raw.annotations.orig_time is not None),
                self._raw.annotations.duration, self._raw.annotations.description, strict=True,
            )
            if path.suffix.lower() != HEADER_SUFFIX or not str(text).startswith(SEGMENT)
        ]  # fmt: skip
        self.events = tuple(sorted(self._event(*mark) for mark in marks if mark[2] != _GAP))
        self.notes: tuple[str, ...] = ()
        if path.suffix.lower() == HEADER_SUFFIX and len(files_of(path)) < 2:
            self.notes = ("no marker file: pauses and events are not known",)
        if len(self._segments) > 1:
            self._parts = list(pairwise([*(segment.first for segment in self._segments), self._raw.n_times]))
            self.notes = (f"paused {len(self._parts) - 1} times, by the dates of its markers",)
        else:
            gaps = [(at, at + length) for at, length, text in marks if text == _GAP]
            self._parts = _between(gaps, self._raw.n_times, float(rate))
        self.stretches = tuple(
            Stretch(self._time_s(first), float((last - first) / rate)) for first, last in self._parts
        )

    def _time_s(self, sample: float) -> float:
        """Seconds after the first sample of the file, pauses included."""
        place = bisect_right(self._segments, sample + 1e-6, key=lambda segment: segment.first) - 1
        segment = self._segments[max(place, 0)]
        return segment.start_s + float((sample - segment.first) / self._rate)

    def _event(self, at_s: float, length_s: float, text: str) -> Event:
        """An annotation. mne gives its time as if there were no pauses."""
        if len(self._segments) == 1:
            return Event(at_s, at_s + length_s, text)
        first, num_samples = at_s * float(self._rate), length_s * float(self._rate)
        end_s = self._time_s(first + max(num_samples - 1, 0)) + min(num_samples, 1) / float(self._rate)
        return Event(self._time_s(first), end_s, text)

    def close(self) -> None:
        """Close the file."""
        self._raw.close()

    def num_samples(self, stretch: int, channel: int) -> int:
        """Number of samples of a channel in a stretch."""
        first, last = self._parts[stretch]
        return last - first

    def read(self, stretch: int, channels: Sequence[int], first: int, last: int) -> NDArray[np.float64]:
        """Read samples [first, last) of channels, in volts: [channels, samples]. Raises UserError for damaged data."""
        begin = self._parts[stretch][0]
        picks = [self._picks[channel] for channel in channels]
        try:
            return np.asarray(self._raw.get_data(picks, begin + first, begin + last, verbose="error"), np.float64)
        except Exception as error:
            raise UserError(f"mne cannot read its samples ({first_line(error)}); copy the file again") from error


def parts_of(path: Path) -> list[Path]:
    """Return the other files of a recording: those that a BrainVision header names, and EEGLAB's .fdt."""
    if path.suffix.lower() == HEADER_SUFFIX:
        return files_of(path)
    samples = path.with_suffix(".fdt")
    return [samples] if path.suffix.lower() == ".set" and samples.is_file() else []


def _between(gaps: Sequence[tuple[float, float]], num_samples: int, rate_hz: float) -> list[tuple[int, int]]:
    """Return the sample ranges that no gap covers."""
    parts, begin = [], 0
    for start_s, end_s in sorted(gaps):
        first, last = round(start_s * rate_hz), round(end_s * rate_hz)
        if first > begin:
            parts.append((begin, min(first, num_samples)))
        begin = max(begin, last)
    if begin < num_samples:
        parts.append((begin, num_samples))
    if not parts:
        raise UserError("no samples between its gaps; leave the file out")
    return parts
