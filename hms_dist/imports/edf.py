"""EDF, EDF+ and BDF files: records, read in blocks, and their times.

edfio maps an EDF file into memory and reads a BDF file whole; here a recording of any length takes the same memory.
EDF+D files may have gaps between records; their annotations give the time of each record.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.files import open_file
from hms_dist.imports.edf_header import PART_BYTES, gain, no_length, read_header
from hms_dist.imports.source import Channel, Event, Stretch

Floats = NDArray[np.float64]
RECORD_BYTES = 64 << 20
"""Most bytes of a record; the standard recommends at most 61,440."""
_TAL = re.compile(rb"([+-][0-9]+(?:\.[0-9]*)?)(?:\x15([0-9]+(?:\.[0-9]*)?))?\x14(.*)\x14", re.DOTALL)
"""A time-stamped annotation list: onset, duration, texts."""


class EdfFile:
    """An open EDF, EDF+ or BDF file."""

    def __init__(self, path: Path, truncated: Literal["fail", "keep"] = "fail") -> None:
        """Open a file and read its header and annotations. Raises UserError without the name of the file."""
        self._file = open_file(path)
        try:
            self._open(truncated)
        except BaseException:
            self._file.close()
            raise

    def _open(self, truncated: Literal["fail", "keep"]) -> None:
        header = read_header(self._file)
        self._bytes = 3 if header.is_bdf else 2
        signals = header.signals
        self._spr = [signal.samples_per_data_record for signal in signals]
        ends = np.cumsum(self._spr)
        self._record_samples = int(ends[-1])
        self._starts = (ends - self._spr).tolist()
        self._header_bytes = PART_BYTES * (1 + len(signals))
        self.notes: tuple[str, ...] = ()
        self._num_records = self._count_records(header.num_records, truncated)
        self._duration_s = header.record_s
        annotations = [number for number, signal in enumerate(signals) if _is_annotations(signal)]
        self._numbers = [number for number in range(len(signals)) if number not in annotations]
        if not self._numbers:
            raise UserError("expected signals, found annotations alone; give the file that holds the EEG")
        if header.record_s == 0:
            raise no_length()
        self.channels = tuple(
            Channel(signals[number].label, signals[number].physical_dimension, self._spr[number] / header.record_s)
            for number in self._numbers
        )
        self._gains = [gain(signals[number]) for number in self._numbers]
        is_plus = header.reserved[:5] in ("EDF+C", "EDF+D", "BDF+C", "BDF+D")
        self.events: tuple[Event, ...] = ()
        onsets = None
        if is_plus and annotations:
            onsets, self.events = self._annotations(annotations)
        elif header.reserved[3:5] == "+D":
            raise UserError(f"header: states {header.reserved[:5]}, but the file has no annotations with the times of "
                            "its records; export it again")  # fmt: skip
        self._firsts, self.stretches = self._stretches(onsets if header.reserved[3:5] == "+D" else None)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def num_samples(self, stretch: int, channel: int) -> int:
        """Number of samples of a channel in a stretch."""
        records = self._firsts[stretch + 1] - self._firsts[stretch]
        return records * self._spr[self._numbers[channel]]

    def read(self, stretch: int, channels: Sequence[int], first: int, last: int) -> Floats:
        """Read samples [first, last) of channels of one rate, in the unit of the file: [channels, samples]."""
        spr = self._spr[self._numbers[channels[0]]]
        begin, end = first // spr, -(-last // spr)
        records = self._records(self._firsts[stretch] + begin, self._firsts[stretch] + end)
        values = np.empty((len(channels), last - first))
        part = slice(first - begin * spr, last - begin * spr)
        for number, channel in enumerate(channels):
            start, (gain, offset) = self._starts[self._numbers[channel]], self._gains[channel]
            np.multiply(records[:, start : start + spr].reshape(-1)[part], gain, out=values[number])
            values[number] += offset
        return values

    def _records(self, first: int, last: int) -> NDArray[Any]:
        """Read records [first, last) as integers [records, samples]."""
        size = self._record_samples * self._bytes
        content = self._at(self._header_bytes + first * size, (last - first) * size)
        if self._bytes == 2:
            return np.frombuffer(content, "<i2").reshape(last - first, -1)
        parts = np.frombuffer(content, np.uint8).reshape(-1, 3)
        values = parts[:, 0].astype(np.int32)
        values |= parts[:, 1].astype(np.int32) << 8
        values |= parts[:, 2].view(np.int8).astype(np.int32) << 16
        return values.reshape(last - first, -1)

    def _at(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        content = self._file.read(size)
        if len(content) < size:
            raise UserError("the file became shorter while it was read; copy it again")
        return content

    def _count_records(self, announced: int, truncated: str) -> int:
        """Return the number of records in the file. Raises UserError if the header announces another number."""
        size = self._record_samples * self._bytes
        if not 0 < size <= RECORD_BYTES:
            raise UserError(f"header: expected records of 1 to {RECORD_BYTES} bytes, found {size}; export it again")
        length = self._file.seek(0, 2) - self._header_bytes
        held, rest = divmod(length, size)
        if held == 0:
            raise UserError(f"expected records of {size} bytes, found {max(length, 0)} bytes; the file has no signals")
        if announced == -1 or (announced == held and rest == 0):  # -1: the recording was not closed
            return held
        if announced < held:
            self.notes = (f"{held - announced} records more than the header announces are left out",)
            if announced < 1:
                raise UserError(f"header: expected at least 1 record, found {announced}; export it again")
            return announced
        if truncated == "fail":
            raise UserError(
                f"truncated: the header announces {announced} records, the file holds {length / size:.1f}; copy it "
                "again, or import what it holds with --truncated keep"
            )
        self.notes = (f"truncated: {held} of {announced} records",)
        return held

    def _annotations(self, signals: Sequence[int]) -> tuple[list[float | None], tuple[Event, ...]]:
        """Read the onset of each record and all events from the annotation signals."""
        onsets: list[float | None] = []
        events: list[tuple[float, float, str]] = []
        size = self._record_samples * self._bytes
        for record in range(self._num_records):
            for number in signals:
                place = self._header_bytes + record * size + self._starts[number] * self._bytes
                found = list(_tals(self._at(place, self._spr[number] * self._bytes)))
                if number == signals[0]:
                    onsets.append(found[0][0] if found and found[0][2][:1] == [""] else None)
                events += [(onset, duration, text) for onset, duration, texts in found for text in texts if text]
        begin = onsets[0] or 0.0
        return onsets, tuple(sorted(Event(at - begin, at - begin + length, text) for at, length, text in events))

    def _stretches(self, onsets: list[float | None] | None) -> tuple[list[int], tuple[Stretch, ...]]:
        """Split the records at gaps.

        Returns the first record of each stretch followed by the number of records, and the stretches.
        """
        length = float(self._duration_s)
        if onsets is None:
            return [0, self._num_records], (Stretch(0.0, self._num_records * length),)
        if None in onsets:
            raise UserError(f"record {onsets.index(None) + 1} has no time, which EDF+D needs; export it again")
        times = np.array(onsets, np.float64)
        times -= times[0]
        jumps = np.diff(times) - length
        tolerance = max(0.5 / float(max(channel.rate_hz for channel in self.channels)), 1e-3)
        if (jumps < -tolerance).any():
            record = int(np.flatnonzero(jumps < -tolerance)[0]) + 1
            raise UserError(
                f"record {record + 1} begins at {times[record]:g} s, before record {record} ends; expected times that "
                "rise; export it again"
            )
        firsts = [0, *(np.flatnonzero(jumps > tolerance) + 1).tolist(), self._num_records]
        pairs = pairwise(firsts)
        return firsts, tuple(Stretch(float(times[first]), (last - first) * length) for first, last in pairs)


def _tals(content: bytes) -> Iterator[tuple[float, float, list[str]]]:
    """Onset, duration and texts of each annotation list of a record."""
    for part in content.split(b"\x00"):
        if found := _TAL.fullmatch(part):
            onset, duration, texts = found.groups()
            yield float(onset), float(duration or 0), [text.decode(errors="replace") for text in texts.split(b"\x14")]


def _is_annotations(signal: Any) -> bool:
    return signal.label in ("EDF Annotations", "BDF Annotations")
