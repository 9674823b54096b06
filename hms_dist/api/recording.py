"""Recordings and their panels: `hms_dist.read_recording` and `hms_dist.draw`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from hms_dist.config.load import resolved
from hms_dist.core.errors import UserError
from hms_dist.datasets import AUDIO_RATE_HZ, read_dataset
from hms_dist.imports.open_recording import SUFFIXES
from hms_dist.imports.options import ReadingOptions
from hms_dist.imports.whole import read_whole
from hms_dist.labels.table import read_labels
from hms_dist.panels.panel import AudioPanel, AudioWindow, Panel, Window
from hms_dist.recordings.audio import AudioRecording, read_audio
from hms_dist.recordings.reader import Recording, RecordingReader
from hms_dist.rendering.render import RenderConfig
from hms_dist.rendering.row_source import window_of

Array = NDArray[Any]
Split = Literal["train", "test"]


def read_recording(
    path: str | Path,
    *,
    eeg_id: int | None = None,
    spectrogram_id: int | None = None,
    split: Split = "train",
    reading: ReadingOptions | Mapping[str, Any] | None = None,
) -> Recording:
    """Read an EEG and its 10-minute spectrogram; `read_clip` reads audio.

    `path`: a recording that `hms-dist import` reads (.edf, .bdf, .mat, ...), read into memory as a whole, with its
    options `reading` (map, reference, missing, unit, truncated); or a folder in Kaggle's layout, with `eeg_id` and
    `split`; or one of its EEG files, DATA/train_eegs/<eeg_id>.parquet. `spectrogram_id`: None takes that of the first
    row of the EEG in the folder's label table.

    Returns a `Recording`: `eeg` float32 [samples, 20] in microvolts at 200 Hz, NaN where nothing was recorded;
    `spectrogram` float32 [rows, 4 regions, 100 frequencies], power; `spectrogram_time_s` float64 [rows], seconds.

    Raises UserError for a missing or malformed file, and for an EEG that the label table does not have.
    """
    data = Path(path)
    if data.suffix.lower() in SUFFIXES:
        return read_whole(data, resolved(ReadingOptions, reading or {}))
    if data.suffix == ".parquet":
        if eeg_id is not None:
            raise UserError(f"{data}: is one recording; leave out eeg_id, or give the folder above {data.parent.name}")
        data, split, eeg_id = _of_file(data)
    if eeg_id is None:
        raise UserError(f"{data}: expected the eeg_id of a recording in this folder, or the path of a .parquet file")
    if spectrogram_id is None:
        spectrogram_id = _spectrogram_of(data / f"{split}.csv", eeg_id)
    return RecordingReader(data, split).read(eeg_id, spectrogram_id)


def read_clip(path: str | Path, *, rate_hz: int = AUDIO_RATE_HZ) -> AudioRecording:
    """Read a .flac or .wav file, resampled to `rate_hz` if it has another rate, channels averaged.

    Returns an `AudioRecording`: `samples` float32 [1, samples], full scale 1, and `rate_hz`.

    Raises UserError for a missing or damaged file.
    """
    return read_audio(Path(path), rate_hz)


@overload
def draw(
    recording: Recording | AudioRecording,
    panels: RenderConfig | Mapping[str, Panel] | str | Path,
    *,
    start_s: float | Sequence[float] | NDArray[np.float64] = ...,
    spectrogram_start_s: float | Sequence[float] | NDArray[np.float64] | None = ...,
) -> dict[str, Array]: ...
@overload
def draw(
    recording: Recording | AudioRecording,
    panels: Panel,
    *,
    start_s: float | Sequence[float] | NDArray[np.float64] = ...,
    spectrogram_start_s: float | Sequence[float] | NDArray[np.float64] | None = ...,
) -> Array: ...
def draw(
    recording: Recording | AudioRecording,
    panels: RenderConfig | Mapping[str, Panel] | Panel | str | Path,
    *,
    start_s: float | Sequence[float] | NDArray[np.float64] = 0.0,
    spectrogram_start_s: float | Sequence[float] | NDArray[np.float64] | None = None,
) -> dict[str, Array] | Array:
    """Draw panels of one window of a recording, or of many.

    `panels`: the name or path of a render recipe ("sixteenth_place"), its `RenderConfig`, panels by name, or one panel.
    `start_s`: start of each 50-second window of the EEG, or of the row of audio, in seconds; a number, or a sequence
    [n].
    `spectrogram_start_s`: start of the window's 10 minutes in the spectrogram's time, seconds, as the column
    spectrogram_label_offset_seconds of a label table. None: as `start_s`.

    Returns panel name -> array of the panel's shape and dtype (`panel.spec`: bool for bits, uint8, or float16 with NaN
    for gaps), or for one panel its array; with a sequence of starts, arrays have a leading axis [n].

    Raises UserError for an unknown recipe, and for a window that is not within the recording.
    """
    chosen: Mapping[str, Panel]
    if isinstance(panels, Panel):
        chosen = {"": panels}
    elif isinstance(panels, Mapping):
        chosen = panels
    else:
        chosen = resolved(RenderConfig, panels).panels
    starts = np.atleast_1d(np.asarray(start_s, np.float64))
    others = starts if spectrogram_start_s is None else np.atleast_1d(np.asarray(spectrogram_start_s, np.float64))
    if len(starts) != len(others) or not len(starts):
        raise UserError(f"spectrogram_start_s: expected as many as start_s has, {len(starts)}, found {len(others)}")
    if isinstance(recording, AudioRecording):
        found = _draw_audio(chosen, recording, starts)
    else:
        found = draw_windows(chosen, prepare(chosen, recording), windows_at(recording, starts, others))
    drawn = {name: every[0] if np.ndim(start_s) == 0 else every for name, every in found.items()}
    return drawn[""] if isinstance(panels, Panel) else drawn


def _draw_audio(
    panels: Mapping[str, Panel], recording: AudioRecording, starts: NDArray[np.float64]
) -> dict[str, Array]:
    """Draw rows of audio that begin at `starts` [n], seconds: panel name -> array with a leading axis [n].

    Raises UserError for a panel of EEG or of another sampling rate, and for a row that is not within the recording.
    """
    found: dict[str, Array] = {}
    for name, panel in panels.items():
        if not isinstance(panel, AudioPanel) or panel.rate_hz != recording.rate_hz:
            needs = f"{panel.rate_hz} Hz" if isinstance(panel, AudioPanel) else "EEG"
            raise UserError(f"panels: '{name}' is drawn from {needs}, found audio of {recording.rate_hz} Hz")
        num_samples = round(panel.window_s * panel.rate_hz)
        first = np.rint(starts * recording.rate_hz).astype(np.int64)
        if first.min() < 0 or first.max() + num_samples > recording.samples.shape[1]:
            length_s = recording.samples.shape[1] / recording.rate_hz
            raise UserError(
                f"start_s: rows of {panel.window_s:g} s begin at 0 to {length_s - panel.window_s:g} s of "
                f"'{recording.name}', found {starts.min():g} to {starts.max():g}"
            )
        windows = [AudioWindow(recording=recording, start=int(start), num_samples=num_samples) for start in first]
        found[name] = np.stack([panel.draw(None, window) for window in windows])
    return found


def prepare(panels: Mapping[str, Panel], recording: Recording) -> dict[str, Any]:
    """Compute what each panel needs of a whole recording, once for all of its windows."""
    return {name: panel.prepare(recording) for name, panel in panels.items()}


def windows_at(recording: Recording, starts: NDArray[np.float64], others: NDArray[np.float64]) -> list[Window]:
    """Windows that begin at `starts` [n] in the EEG and at `others` [n] in the spectrogram, seconds.

    Raises UserError for a window that is not within the recording.
    """
    if not (starts >= 0).all():
        raise UserError(f"start_s: expected 0 or more seconds, found {starts.min():g}")
    offsets = [
        {"eeg_label_offset_seconds": eeg, "spectrogram_label_offset_seconds": other}
        for eeg, other in zip(starts.tolist(), others.tolist(), strict=True)
    ]
    return [window_of(recording, fields) for fields in offsets]


def draw_windows(
    panels: Mapping[str, Panel], prepared: Mapping[str, Any], windows: Sequence[Window]
) -> dict[str, Array]:
    """Draw the panels of `windows` [n] from what `prepare` computed: panel name -> [n, *stored shape], stored dtype."""
    return {
        name: np.stack([panel.draw(prepared[name], window) for window in windows]) for name, panel in panels.items()
    }


def _of_file(path: Path) -> tuple[Path, Split, int]:
    """Folder, split and eeg_id of an EEG file in Kaggle's layout."""
    split: Split
    for split in ("train", "test"):
        if path.parent.name == f"{split}_eegs" and path.stem.isdecimal():
            return path.parent.parent, split, int(path.stem)
    raise UserError(f"{path}: expected DATA/train_eegs/<eeg_id>.parquet or DATA/test_eegs/<eeg_id>.parquet")


def _spectrogram_of(table: Path, eeg_id: int) -> int:
    frame = read_labels(table, read_dataset(table.parent)).frame
    found = frame.loc[frame["eeg_id"] == eeg_id, "spectrogram_id"]
    if found.empty:
        raise UserError(f"{table}: no row for EEG {eeg_id}; check eeg_id, or give its spectrogram_id")
    return int(found.iloc[0])
