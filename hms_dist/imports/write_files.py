"""Files of one imported recording: EEG by segment, and the 10-minute spectrogram, in Kaggle's form."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from hms_dist.core.files import atomic
from hms_dist.core.signal_format import CHANNELS, KAGGLE_COLUMNS, RATE_HZ, ROW_S, WINDOW_SAMPLES
from hms_dist.imports.facts import Facts
from hms_dist.imports.rows import Row
from hms_dist.imports.signal import LONGEST_S, Signal
from hms_dist.jobs.worker_processes import check_stop
from hms_dist.signals.regional_power import MARGIN_S, regional_power

SEGMENT_S = 1800
"""Longest part of a recording in one EEG file, without its margins: rendering filters whole files."""
HALF = WINDOW_SAMPLES // 2
"""Samples of the window before and after its middle; also the margin of EEG on both sides of a segment."""
PAD_ROWS = 150
"""Empty rows of the spectrogram before the first sample and after the last: half of 10 minutes."""
CONTEXT_S = 300
"""Half of the 10 minutes that a label row shows of the spectrogram."""
MOST_SEGMENTS = LONGEST_S // SEGMENT_S
"""Most EEG files of a recording."""


@dataclass(frozen=True)
class Written:
    """A label row in the written files."""

    eeg_id: int
    eeg_sub_id: int
    eeg_offset_s: float
    spectrogram_offset_s: float
    votes: tuple[int | None, ...]


def write_recording(
    signal: Signal, rows: Sequence[Row], number: int, out: Path, split: str, facts: Facts
) -> list[Written]:
    """Write the parts of a recording that its label rows need; return the rows. `rows`: ascending.

    Segments without label rows are not written, and spectrogram rows that no label row shows are empty. EEG continues
    over the ends of the recording, as NaN, as far as the windows of the label rows do.
    """
    written: list[Written] = []
    num_segments = max(1, -(-signal.num_samples // (SEGMENT_S * RATE_HZ)))
    segment_of = [min(int(row.centre_s // SEGMENT_S), num_segments - 1) for row in rows]
    centres = np.array([row.centre_s for row in rows])
    with _spectrogram_file(out / f"{split}_spectrograms" / f"{number}.parquet") as spectrogram:
        spectrogram.skip(PAD_ROWS)
        for segment in range(num_segments):
            check_stop()
            begin = segment * SEGMENT_S * RATE_HZ
            end = min(begin + SEGMENT_S * RATE_HZ, signal.num_samples)
            num_rows = -(-(end - begin) // (int(ROW_S) * RATE_HZ))
            near = (centres >= begin / RATE_HZ - CONTEXT_S) & (centres <= end / RATE_HZ + CONTEXT_S)
            if not near.any():
                spectrogram.skip(num_rows)
                continue
            eeg = signal.read(begin - HALF, end + HALF)
            own = [row for row, place in zip(rows, segment_of, strict=True) if place == segment]
            if own:
                eeg_id = number * MOST_SEGMENTS + segment
                first, last = _bounds(begin, end, signal.num_samples, own)
                _write_eeg(
                    out / f"{split}_eegs" / f"{eeg_id}.parquet", eeg[:, first - begin + HALF : last - begin + HALF]
                )
                written += [_place(eeg_id, sub_id, row, first) for sub_id, row in enumerate(own)]
                facts.add(eeg[:, HALF : HALF + end - begin])
            margin = MARGIN_S * RATE_HZ
            length = num_rows * int(ROW_S) * RATE_HZ
            spectrogram.write(regional_power(eeg[:, HALF - margin : HALF + length + margin].T))
        spectrogram.skip(PAD_ROWS)
    return written


def make_folders(out: Path, split: str) -> None:
    """Create the folders that `write_recording` writes to."""
    for kind in ("eegs", "spectrograms"):
        (out / f"{split}_{kind}").mkdir(parents=True, exist_ok=True)


def _bounds(begin: int, end: int, num_samples: int, rows: Sequence[Row]) -> tuple[int, int]:
    """Samples [first, last) of a segment's file: its margins, at the ends of the recording as far as windows need."""
    windows = [round(row.centre_s * RATE_HZ) for row in rows]
    first = begin - HALF if begin else min(0, windows[0] - HALF)
    last = end + HALF if end + HALF <= num_samples else max(num_samples, windows[-1] + HALF)
    return first, last


def _place(eeg_id: int, sub_id: int, row: Row, first: int) -> Written:
    start = round(row.centre_s * RATE_HZ) - HALF - first
    # The spectrogram begins PAD_ROWS before the recording, so 10 minutes around the middle begin at its own time.
    return Written(eeg_id, sub_id, start / RATE_HZ, row.centre_s, row.votes)


def _write_eeg(path: Path, eeg: NDArray[np.float32]) -> None:
    with atomic(path) as file:
        pq.write_table(pa.table(dict(zip(CHANNELS, eeg, strict=True))), file, compression="snappy")


class _SpectrogramWriter:
    """Writes rows as they come, so that a long recording takes no more memory than a short one."""

    def __init__(self, writer: pq.ParquetWriter) -> None:
        self._writer, self._num_rows = writer, 0

    def skip(self, num_rows: int) -> None:
        """Write empty rows."""
        self._write(np.full((num_rows, len(KAGGLE_COLUMNS)), np.nan, np.float32))

    def write(self, power: NDArray[np.float32]) -> None:
        """Write rows [rows, 4, 100]."""
        self._write(power.reshape(len(power), -1))

    def _write(self, rows: NDArray[np.float32]) -> None:
        numbers = np.arange(self._num_rows, self._num_rows + len(rows), dtype=np.int64)
        columns: list[Any] = [int(ROW_S) * numbers + int(ROW_S) // 2, *np.ascontiguousarray(rows.T)]
        self._writer.write_table(pa.table(columns, schema=_SCHEMA))
        self._num_rows += len(rows)


_SCHEMA = pa.schema([("time", pa.int64()), *((name, pa.float32()) for name in KAGGLE_COLUMNS)])


@contextmanager
def _spectrogram_file(path: Path) -> Iterator[_SpectrogramWriter]:
    with atomic(path) as file, pq.ParquetWriter(file, _SCHEMA, compression="snappy") as writer:
        yield _SpectrogramWriter(writer)
