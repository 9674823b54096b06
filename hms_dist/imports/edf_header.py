"""The header of EDF, EDF+ and BDF files, parsed by edfio and checked."""

import warnings
from fractions import Fraction
from io import BytesIO
from typing import Any

from hms_dist.core.errors import UserError, first_line

PART_BYTES = 256
"""Bytes of the header's first part, and of the description of each signal."""
MOST_SIGNALS = 2048
"""Most signals of a file."""
_ANONYMOUS = {"", "x", "xx", "xxx", "anonymous", "anonymized", "unknown", "none", "n/a", "patient"}


class Header:
    """The header of an EDF or BDF file, checked. Raises UserError without the name of the file."""

    def __init__(self, content: bytes) -> None:
        edfio = _edfio()
        self.is_bdf = content[:1] == b"\xff"
        read = edfio.read_bdf if self.is_bdf else edfio.read_edf
        num_signals = _integer(content[252:256], "number of signals", 1, MOST_SIGNALS)
        expected = PART_BYTES * (1 + num_signals)
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
                raise no_length() from error
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
    begin = file.read(PART_BYTES)
    if len(begin) < PART_BYTES or begin[:8] not in (b"0       ", b"\xffBIOSEMI"):
        raise UserError("not an EDF or BDF file: expected a header that begins with version 0 or BIOSEMI")
    num_signals = _integer(begin[252:256], "number of signals", 1, MOST_SIGNALS)
    return Header(begin + file.read(PART_BYTES * num_signals))


def gain(signal: Any) -> tuple[float, float]:
    """Return gain and offset of a signal in the unit of the file. A reversed physical range inverts the signal.

    Raises UserError for impossible limits.
    """
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


def no_length() -> UserError:
    """Create the error for a file whose records have no length."""
    return UserError("header: expected records of above 0 s, found 0; export it again")


def _edfio() -> Any:
    try:
        import edfio
    except ImportError as error:
        raise UserError("EDF and BDF files are read by edfio: pip install 'hms-dist[edf]'") from error
    return edfio


def _check_signal(signal: Any) -> None:
    if signal.samples_per_data_record < 1:
        raise UserError(
            f"header: signal '{signal.label}': expected samples per record above 0, found "
            f"{signal.samples_per_data_record}; export it again"
        )


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
