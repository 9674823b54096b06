"""Recordings of label rows: their files, and the window of each row. One class per kind of signal."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from hms_dist.core.errors import UserError
from hms_dist.core.signal_format import RATE_HZ, WINDOW_SAMPLES
from hms_dist.datasets import Dataset
from hms_dist.labels.recording_ids import recording_name
from hms_dist.labels.table import BOX_COLUMNS, sample_key
from hms_dist.panels.panel import AudioWindow, Window
from hms_dist.recordings.audio import SUFFIXES, AudioReader, AudioRecording
from hms_dist.recordings.reader import Recording, RecordingReader
from hms_dist.signals.quality import channel_quality, wrong_scale_uv

KINDS = ("eeg", "spectrogram")
"""Kinds of files of a row; of audio both are the recording."""


class RowSource(Protocol):
    """Reads the recordings of label rows, each once for consecutive rows that share it."""

    def read(self, fields: Mapping[str, Any]) -> Any:
        """Read the recording of a row, given its index fields. Raises UserError naming the file."""

    def window(self, recording: Any, fields: Mapping[str, Any]) -> Any:
        """Return the window of a row. Raises UserError if the recording does not have all of it."""

    def fingerprints(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """Columns of the index with the fingerprints of the row's files, which were read."""

    def quality(self, window: Any) -> tuple[Any, int, float | None]:
        """Quality of a window for the json member; number of samples of the recording; amplitude of a wrong scale."""


class EegSource:
    """EEG in Kaggle's layout: an EEG file and a spectrogram file."""

    def __init__(self, data: Path, split: Any) -> None:
        self._reader, self._split = RecordingReader(data, split), split

    def read(self, fields: Mapping[str, Any]) -> Recording:
        """See `RowSource`."""
        return self._reader.read(fields["eeg_id"], fields["spectrogram_id"])

    def window(self, recording: Recording, fields: Mapping[str, Any]) -> Window:
        """See `RowSource`."""
        return window_of(recording, fields)

    def fingerprints(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """See `RowSource`."""
        found = self._reader.fingerprints
        return {f"{kind}_fingerprint": found[f"{self._split}_{kind}s/{fields[f'{kind}_id']}.parquet"] for kind in KINDS}

    def quality(self, window: Window) -> tuple[Any, int, float | None]:
        """See `RowSource`."""
        eeg = window.recording.eeg
        seen = eeg[window.start : window.start + WINDOW_SAMPLES]
        quality = channel_quality(seen)
        return quality, len(eeg), wrong_scale_uv(seen, quality)


class AudioSource:
    """Audio: one file per recording."""

    def __init__(self, data: Path, split: str, dataset: Dataset) -> None:
        self._reader, self._dataset = AudioReader(data, split, dataset.rate_hz), dataset

    def read(self, fields: Mapping[str, Any]) -> AudioRecording:
        """See `RowSource`."""
        return self._reader.read(fields["eeg_id"])

    def window(self, recording: AudioRecording, fields: Mapping[str, Any]) -> AudioWindow:
        """See `RowSource`. Raises UserError for a recording that is too short."""
        needed, start = self._dataset.window_samples, round(fields["eeg_label_offset_seconds"] * recording.rate_hz)
        length = recording.samples.shape[1]
        # A length that was rounded to a whole sample of another rate may lack one.
        if length < needed or start + needed > length + 1:
            raise UserError(
                f"recording {recording.name} is {length / recording.rate_hz:.2f} s long, the row needs "
                f"{start / recording.rate_hz:.2f} to {(start + needed) / recording.rate_hz:.2f} s; remove its rows"
            )
        return AudioWindow(recording=recording, start=start, num_samples=needed)

    def fingerprints(self, fields: Mapping[str, Any]) -> dict[str, str]:
        """See `RowSource`."""
        return dict.fromkeys((f"{kind}_fingerprint" for kind in KINDS), self._reader.fingerprints[fields["eeg_id"]])

    def quality(self, window: AudioWindow) -> tuple[Any, int, float | None]:
        """See `RowSource`: peak and root mean square, full scale 1."""
        samples = window.samples().astype(np.float64)
        quality = {"peak": round(float(abs(samples).max()), 6), "rms": round(float(np.sqrt((samples**2).mean())), 6)}
        return quality, 0, None


def window_of(recording: Recording, fields: Mapping[str, Any]) -> Window:
    """Return the window of a label row of EEG. Raises UserError if the EEG is too short, or the spectrogram has none of
    its rows."""
    start = round(fields["eeg_label_offset_seconds"] * RATE_HZ)
    stop = start + WINDOW_SAMPLES
    if stop > len(recording.eeg):
        raise UserError(
            f"EEG {recording.eeg_id} has {len(recording.eeg)} samples, the 50 s window needs {start} to {stop}; "
            "check eeg_label_offset_seconds"
        )
    offset_s, end_s = fields["spectrogram_label_offset_seconds"], recording.spectrogram_time_s[-1]
    if offset_s > end_s:
        raise UserError(
            f"spectrogram {recording.spectrogram_id} ends at {end_s:g} s, the 10 minutes begin at {offset_s:g} s; "
            "check spectrogram_label_offset_seconds"
        )
    return Window(recording=recording, start=start, spectrogram_offset_s=offset_s)


def open_source(data: Path, split: Any, dataset: Dataset) -> RowSource:
    """Open the recordings of one split of a folder."""
    return EegSource(data, split) if dataset.signal == "eeg" else AudioSource(data, split, dataset)


def recording_files(data: Path, split: str, frame: pd.DataFrame, dataset: Dataset) -> dict[tuple[str, int], Path]:
    """Paths of the files of label rows by kind and id; of audio, by kind `eeg`, the first that exists."""
    if dataset.signal == "eeg":
        every = ((kind, int(number)) for kind in KINDS for number in frame[f"{kind}_id"].unique())
        return {(kind, number): data / f"{split}_{kind}s/{number}.parquet" for kind, number in every}
    numbers = map(int, frame["eeg_id"].unique())
    return {("eeg", number): _existing(data / split, recording_name(number)) for number in numbers}


def index_fields(values: Mapping[Hashable, Any], dataset: Dataset) -> dict[str, Any]:
    """Index fields of a table row as plain Python values; votes and boxes are None where the table has none."""
    ids = {name: int(values[name]) for name in ("eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id")}
    offsets = {name: float(values[name]) for name in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds")}
    votes = {name: _whole(values[name]) for name in dataset.vote_columns}
    box = {name: _whole(values[name]) if name == "songtype_id" else _number(values[name]) for name in _boxes(dataset)}
    return {"key": sample_key(ids["eeg_id"], ids["eeg_sub_id"]), **ids, **offsets, **votes, **box}


def _boxes(dataset: Dataset) -> Iterable[str]:
    return BOX_COLUMNS if dataset.signal == "audio" else ()


def _whole(value: Any) -> int | None:
    return None if pd.isna(value) else int(value)


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _existing(folder: Path, name: str) -> Path:
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.exists()), paths[0])
