"""EDF, EDF+ and BDF files: edfio parses the header; this module reads the records, in blocks, and their times.

edfio maps an EDF file into memory and reads a BDF file whole; here a recording of any length takes the same memory.
EDF+D files may have gaps between records; their annotations give the time of each record.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import open_file
from hms_dist.imports.source import Channel, Event, Stretch

Floats = NDArray[np.float64]
MOST_SIGNALS = 2048
"""Most signals of a file."""
RECORD_BYTES = 64 << 20
"""Most bytes of a record; the standard recommends at most 61,440."""
_FIXED = 256
"""Bytes of the header's first part, and of the description of each signal."""
_TAL = re.compile(rb"([+-][0-9]+(?:\.[0-9]*)?)(?:\x15([0-9]+(?:\.[0-9]*)?))?\x14(.*)\x14", re.DOTALL)
"""A time-stamped annotation list: onset, duration, texts."""
_ANONYMOUS = {"", "x", "xx", "xxx", "anonymous", "anonymized", "unknown", "none", "n/a", "patient"}


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
        self._header_bytes = _FIXED * (1 + len(signals))
        self.notes: tuple[str, ...] = ()
        self._num_records = self._count_records(header.num_records, truncated)
        self._duration_s = header.record_s
        annotations = [number for number, signal in enumerate(signals) if _is_annotations(signal)]
        self._numbers = [number for number in range(len(signals)) if number not in annotations]
        if not self._numbers:
            raise UserError("expected signals, found annotations alone; give the file that holds the EEG")
        if header.record_s == 0:
            raise _no_length()
        self.channels = tuple(
            Channel(signals[number].label, signals[number].physical_dimension, self._spr[number] / header.record_s)
            for number in self._numbers
        )
        self._gains = [_gain(signals[number]) for number in self._numbers]
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


class Header:
    """The header of an EDF or BDF file, checked. Raises UserError without the name of the file."""

    def __init__(self, content: bytes) -> None:
        edfio = _edfio()
        self.is_bdf = content[:1] == b"\xff"
        read = edfio.read_bdf if self.is_bdf else edfio.read_edf
        num_signals = _integer(content[252:256], "number of signals", 1, MOST_SIGNALS)
        expected = _FIXED * (1 + num_signals)
        found = _integer(content[184:192], "bytes of the header", 0, 1 << 30)
        if found != expected or len(content) < expected:
            raise UserError(
                f"header: expected {expected} bytes for {num_signals} signals, found {min(found, len(content))}; "
                "export it again"
            )
        self.num_records = _integer(content[236:244], "number of records", -1, 1 << 31)
        self.record_s = _seconds(content[244:252])
        try:
            with warnings.catch_warnings():  # the header alone: no records follow
                warnings.simplefilter("ignore")
                self._file = read(BytesIO(content[:expected]), header_encoding="latin-1")
            self.signals = self._file._signals  # including annotation signals
            for signal in self.signals:
                _check_signal(signal)
            self.reserved = self._file.reserved
        except UserError:
            raise
        except Exception as error:  # edfio passes on what int() and float() raise
            if self.record_s == 0:
                raise _no_length() from error
            raise UserError(f"header: not readable ({first_line(error)}); export the file again") from error

    @property
    def patient(self) -> str:
        """Patient code as written in the header; empty if it is anonymous."""
        code = self._file.local_patient_identification.split(" ")[0].strip()
        return "" if code.lower() in _ANONYMOUS else code

    @property
    def start(self) -> str:
        """Date and time of the first record as written in the header."""
        return f"{self._file._startdate.decode('latin-1').strip()} {self._file._starttime.decode('latin-1').strip()}"


def read_header(file: Any) -> Header:
    """Read the header from an open file. Raises UserError without the name of the file."""
    file.seek(0)
    begin = file.read(_FIXED)
    if len(begin) < _FIXED or begin[:8] not in (b"0       ", b"\xffBIOSEMI"):
        raise UserError("not an EDF or BDF file: expected a header that begins with version 0 or BIOSEMI")
    num_signals = _integer(begin[252:256], "number of signals", 1, MOST_SIGNALS)
    return Header(begin + file.read(_FIXED * num_signals))


def _tals(content: bytes) -> Iterator[tuple[float, float, list[str]]]:
    """Onset, duration and texts of each annotation list of a record."""
    for part in content.split(b"\x00"):
        if found := _TAL.fullmatch(part):
            onset, duration, texts = found.groups()
            yield float(onset), float(duration or 0), [text.decode(errors="replace") for text in texts.split(b"\x14")]


def _edfio() -> Any:
    try:
        import edfio
    except ImportError as error:
        raise UserError("EDF and BDF files are read by edfio: pip install 'hms-dist[edf]'") from error
    return edfio


def _is_annotations(signal: Any) -> bool:
    return signal.label in ("EDF Annotations", "BDF Annotations")


def _check_signal(signal: Any) -> None:
    if signal.samples_per_data_record < 1:
        raise UserError(
            f"header: signal '{signal.label}': expected samples per record above 0, found "
            f"{signal.samples_per_data_record}; export it again"
        )


def _no_length() -> UserError:
    return UserError("header: expected records of above 0 s, found 0; export it again")


def _gain(signal: Any) -> tuple[float, float]:
    """Return gain and offset of a signal in the unit of the file. A reversed physical range inverts the signal."""
    try:
        low, high = signal.digital_min, signal.digital_max
        bottom, top = signal.physical_min, signal.physical_max
    except ValueError as error:
        raise UserError(
            f"header: signal '{signal.label}': expected numbers as its limits ({first_line(error)}); export it again"
        ) from error
    if high <= low:
        raise UserError(
            f"header: signal '{signal.label}': expected a digital minimum below the maximum, found {low} and {high}; "
            "export it again"
        )
    if bottom == top:
        raise UserError(
            f"header: signal '{signal.label}': expected two different physical limits, found {bottom:g} and {top:g}; "
            "export it again"
        )
    gain = (top - bottom) / (high - low)
    return gain, top - gain * high


def _integer(field: bytes, what: str, low: int, high: int) -> int:
    text = field.decode("latin-1").strip()
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise UserError(f"header: {what}: expected {low} to {high}, found '{text}'; export the file again")
    return value


def _seconds(field: bytes) -> Fraction:
    text = field.decode("latin-1").strip()
    try:
        value = Fraction(text)
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value < 1 << 31:
        raise UserError(
            f"header: seconds of a record: expected a number of at least 0, found '{text}'; export it again"
        )
    return value
