"""Pauses of BrainVision recordings: the samples of all segments adjoin in the file, and only dates of markers tell when
each began.

mne keeps the date of the first segment alone, so the marker file is read here.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from hms_dist.core.errors import UserError
from hms_dist.core.files import read_bytes

HEADER_BYTES, MARKER_BYTES = 4 << 20, 64 << 20
"""Most bytes of a .vhdr and of a .vmrk."""
SEGMENT = "New Segment"
"""Type of the marker at the first sample of a segment."""
TOLERANCE_S, DRIFT = 0.1, 1e-4
"""Overlap of two segments that the clocks of amplifier and computer explain: a base amount, and a share of the length
of the earlier one. They adjoin then."""
_FILE = r"^{}[ \t]*=[ \t]*(.+?)[ \t]*$"
_MARKER = re.compile(rf"^Mk\d+={SEGMENT},[^,]*,(\d+)(?:,[^,]*,[^,]*(?:,(\d*))?)?", re.MULTILINE)


@dataclass(frozen=True)
class Segment:
    """A part of a recording without a pause."""

    first: int
    """Number of its first sample."""
    start_s: float
    """Seconds after the first sample of the file."""


def files_of(header: Path) -> list[Path]:
    """Return the files that a .vhdr names, samples and markers, as far as they can be found."""
    try:
        found = [_named(header, key) for key in ("DataFile", "MarkerFile")]
    except OSError:
        return []
    return [path for path in found if path is not None and path.is_file()]


def read_segments(header: Path, rate_hz: float, num_samples: int) -> tuple[Segment, ...]:
    """Read the segments of a recording by its .vhdr, ascending; a single one for a file without pauses.

    Raises UserError for pauses of unknown length: a marker has no date, or begins before the segment before it ends.
    """
    path = _named(header, "MarkerFile")
    text = read_bytes(path, MARKER_BYTES).decode("latin-1") if path is not None and path.is_file() else ""
    dates: dict[int, datetime | None] = {0: None}
    for place, date in _MARKER.findall(text.replace("\r", "")):
        first = max(int(place) - 1, 0)
        if first < num_samples:
            dates[first] = _date(date)
    firsts = sorted(dates)
    lacking = [first for first in firsts if dates[first] is None]
    if len(firsts) > 1 and lacking:
        raise UserError(
            f"paused {len(firsts) - 1} times, and {len(lacking)} of its {len(firsts)} segments have no date "
            f"(marker '{SEGMENT}' at sample {lacking[0] + 1}), so the lengths of the pauses are unknown; "
            "export the segments as files"
        )
    found = [Segment(0, 0.0)]
    for first in firsts[1:]:
        before, start_s = found[-1], (dates[first] - dates[0]).total_seconds()  # type: ignore[operator]
        length_s = (first - before.first) / rate_hz
        end_s = before.start_s + length_s
        if start_s < end_s - TOLERANCE_S - DRIFT * length_s:
            raise UserError(
                f"segment {len(found) + 1} begins at {start_s:g} s by its date, before segment {len(found)} ends "
                f"({end_s:g} s); expected times that rise; export the segments as files"
            )
        found.append(Segment(first, max(start_s, end_s)))
    return tuple(found)


def _named(header: Path, key: str) -> Path | None:
    """Path of a file that a .vhdr names; the one beside it with the header's own name if that is missing, as in mne."""
    content = read_bytes(header, HEADER_BYTES)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    found = re.search(_FILE.format(key), text.replace("\r", ""), re.MULTILINE | re.IGNORECASE)
    if found is None:
        return None
    path = header.parent / found[1].replace("$b", header.stem)
    return path if path.is_file() or key != "MarkerFile" else header.with_suffix(".vmrk")


def _date(text: str) -> datetime | None:
    """Date of a marker, as YYYYMMDDhhmmss and microseconds; None if it has none."""
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S%f") if len(text) == len("YYYYMMDDhhmmssffffff") else None
    except ValueError:
        return None
