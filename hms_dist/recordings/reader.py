"""Reader of Kaggle's Parquet files. Each file is read once for all rows that use it."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hms_dist.core import files, limits
from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import CHANNELS, FREQUENCIES_HZ, KAGGLE_COLUMNS, NUM_FREQUENCIES, REGIONS, ROW_S
from hms_dist.recordings.columns import Columns, matrix, some
from hms_dist.recordings.polars_reader import quick_frame, quick_matrix

MAX_MICROVOLTS = 1e9
"""Larger values are damage or a wrong unit: this is a kilovolt, and its square still fits float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """An EEG and its 10-minute spectrogram. Compared and hashed by identity."""

    eeg_id: int
    eeg: NDArray[np.float32]
    """Microvolts [samples, 20], columns as CHANNELS, 200 Hz; NaN where nothing was recorded. Column-major, as in the
    files and as all consumers read it; so is the spectrogram."""
    spectrogram_id: int
    spectrogram: NDArray[np.float32]
    """Power [rows, 4, 100], regions as REGIONS, frequencies ascending; NaN for gaps."""
    spectrogram_time_s: NDArray[np.float64]
    """Time of each spectrogram row [rows], seconds, ascending."""


class RecordingReader:
    """Reads the recordings of a data folder, each file once for consecutive rows that share it.

    The last EEG and the last spectrogram are cached, so rows sorted by spectrogram and EEG read no file twice.
    """

    def __init__(self, data: Path, split: Literal["train", "test"] = "train") -> None:
        """Read from `data`, a folder in Kaggle's layout: `<split>_eegs/<id>.parquet`, `<split>_spectrograms/...`."""
        self.data = data
        self.split = split
        self.fingerprints: dict[str, str] = {}
        """Path relative to `data` -> `<bytes>-<CRC-32 in hex>` of every file read so far."""
        self._eeg: tuple[int, NDArray[np.float32]] | None = None
        self._spectrogram: tuple[int, NDArray[np.float64], NDArray[np.float32]] | None = None

    def read(self, eeg_id: int, spectrogram_id: int) -> Recording:
        """Read the recording of a label row. Raises UserError as `read_eeg` and `read_spectrogram` do."""
        if self._eeg is None or self._eeg[0] != eeg_id:
            path, content = self._bytes("eegs", eeg_id)
            self._eeg = (eeg_id, parse_eeg(content, path))
        if self._spectrogram is None or self._spectrogram[0] != spectrogram_id:
            path, content = self._bytes("spectrograms", spectrogram_id)
            self._spectrogram = (spectrogram_id, *parse_spectrogram(content, path))
        return Recording(
            eeg_id=eeg_id,
            eeg=self._eeg[1],
            spectrogram_id=spectrogram_id,
            spectrogram_time_s=self._spectrogram[1],
            spectrogram=self._spectrogram[2],
        )

    def _bytes(self, kind: str, number: int) -> tuple[Path, bytes]:
        relative = f"{self.split}_{kind}/{number}.parquet"
        path = self.data / relative
        if not path.parent.is_dir():
            raise UserError(f"{path.parent}: no such folder; expected the {self.split} {kind} in Kaggle's layout")
        content = read_bytes(path)
        self.fingerprints[relative] = f"{len(content)}-{zlib.crc32(content):08x}"
        return path, content


def read_eeg(path: Path) -> NDArray[np.float32]:
    """Read an EEG file as float32 microvolts [samples, 20], columns as CHANNELS in any file order.

    Other columns are ignored, nulls become NaN. Raises UserError naming the file if it is missing, empty or not
    Parquet, and naming columns that are missing, duplicate, not numeric, infinite or above MAX_MICROVOLTS.
    """
    return parse_eeg(read_bytes(path), path)


def read_spectrogram(path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Read a spectrogram file as (time in seconds float64 [rows], power float32 [rows, 4, 100]).

    Columns are `time` and `<region>_<hertz>`, in any order; regions are returned as REGIONS, frequencies as
    FREQUENCIES_HZ. Powers are not checked: panels handle invalid ones. Raises UserError as `read_eeg` does for columns,
    and if the time does not increase or its rows are not ROW_S apart.
    """
    return parse_spectrogram(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Read a file. Raises UserError if it is missing, unreadable, empty or not a regular file (reading a pipe would
    block)."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a file; expected parquet; put the file in its place")
    try:
        content = files.read_bytes(path, limits.PARQUET_BYTES)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; the label table names it, so add it or remove its rows") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot read this file ({error.strerror}); check the path and its permissions"
        ) from error
    if not content:
        raise UserError(f"{path}: the file is empty; expected parquet; download it again")
    return content


def parse_eeg(content: bytes, path: Path) -> NDArray[np.float32]:
    """Parse the content of an EEG file. Result and errors as `read_eeg`, which raises UserError."""
    eeg = quick_matrix(quick_frame(content, CHANNELS), CHANNELS)
    if eeg is None:
        columns = Columns(content, path)
        if _power_columns(columns.names) and "EKG" not in columns.names:
            raise UserError(
                f"{path}: expected an EEG (columns {some(CHANNELS)}), found a spectrogram; exchange the files"
            )
        eeg = matrix(columns.read(CHANNELS), CHANNELS)
    flat = eeg.ravel(order="K")
    if max(np.fmax.reduce(flat), -np.fmin.reduce(flat)) > MAX_MICROVOLTS:  # ignores NaN
        row, channel = np.argwhere((eeg > MAX_MICROVOLTS) | (eeg < -MAX_MICROVOLTS))[0]
        raise UserError(
            f"{path}: row {row}, column {CHANNELS[channel]}: expected microvolts, found {eeg[row, channel]:g}; "
            "mark what was not recorded as NaN"
        )
    return eeg


def parse_spectrogram(content: bytes, path: Path) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Parse the content of a spectrogram file. Result and errors as `read_spectrogram`, which raises UserError."""
    frame = quick_frame(content, ("time", *KAGGLE_COLUMNS))
    quick = quick_matrix(frame, KAGGLE_COLUMNS)
    if frame is not None and quick is not None and "time" in frame.columns and frame["time"].dtype.is_numeric():
        return _rising(frame["time"].to_numpy().astype(np.float64), path), _by_region(quick)
    columns = Columns(content, path)
    found = _power_columns(columns.names)
    if not found and "EKG" in columns.names:
        raise UserError(
            f"{path}: expected a spectrogram (columns time, LL_0.59, ...), found an EEG; exchange the files"
        )
    # A frequency that the file lacks is requested, and so reported, by Kaggle's name.
    wanted = [(region, hertz) for region in REGIONS for hertz in FREQUENCIES_HZ]
    names = [found.get(pair, name) for pair, name in zip(wanted, KAGGLE_COLUMNS, strict=True)]
    table = columns.read(["time", *names])
    return _rising(table["time"].to_numpy().astype(np.float64), path), _by_region(matrix(table, names))


def _by_region(power: NDArray[np.float32]) -> NDArray[np.float32]:
    """View `power` [rows, 400] as [rows, 4, 100]."""
    return power.T.reshape(len(REGIONS), NUM_FREQUENCIES, -1).transpose(2, 0, 1)


def _power_columns(names: list[str]) -> dict[tuple[str, float], str]:
    """Map (region, hertz) to the column name, for every column named `<region>_<hertz>`."""
    found = {}
    for name in names:
        region, _, hertz = name.partition("_")
        if region in REGIONS and hertz.replace(".", "", 1).isdecimal():
            found[region, float(hertz)] = name
    return found


def _rising(time_s: NDArray[np.float64], path: Path) -> NDArray[np.float64]:
    """Check that `time_s` increases and that most rows are ROW_S apart. Raises UserError naming the first row that does
    not increase."""
    before = np.concatenate(([-np.inf], time_s[:-1]))
    wrong = np.flatnonzero(~((time_s > before) & np.isfinite(time_s)))
    if wrong.size:
        row = wrong[0]
        raise UserError(
            f"{path}: row {row}, column time: expected seconds that rise, found {time_s[row]:g} after {before[row]:g}; "
            "sort the rows and remove those without a time"
        )
    step_s = np.median(np.diff(time_s)) if len(time_s) > 1 else ROW_S
    if abs(step_s - ROW_S) > ROW_S / 100:
        raise UserError(f"{path}: column time: expected rows {ROW_S:g} s apart, found {step_s:g} s; resample the file")
    return time_s
