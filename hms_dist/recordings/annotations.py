"""Label rows of audio: RFCX's tables of annotations, and the windows of recordings without labels.

An annotation is a box in time and frequency that an expert judged: the species is there (train_tp.csv) or is not
(train_fp.csv). Each becomes a row, the window around the middle of its box, moved inwards at the recording's ends. Only
the annotated species is known in a row.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.logging import LOG
from hms_dist.datasets import NEGATIVES_NAME, POSITIVES_NAME, Dataset
from hms_dist.labels.recording_ids import numbers_of, recording_name, recording_number
from hms_dist.labels.table import BOX_COLUMNS, MAX_OFFSET_S, LabelTable
from hms_dist.recordings.audio import SUFFIXES, audio_path, length_s

COLUMNS = ("recording_id", "species_id", "songtype_id", "t_min", "f_min", "t_max", "f_max")
"""Columns of a table of annotations."""
_KINDS = {1: POSITIVES_NAME, 0: NEGATIVES_NAME}
"""Whether the species is there -> table of such annotations."""
_TOLERANCE_S = 0.01
"""A box may end this much after its recording: times are rounded."""
Floats = NDArray[np.float64]


def read_annotations(data: Path, dataset: Dataset) -> LabelTable:
    """Read DATA/train_tp.csv and DATA/train_fp.csv. Raises UserError with file, row, column, expected and found value.

    Without train_fp.csv, no absence is known; where targets are shares, it is not read.
    """
    paths = {kind: data / name for kind, name in _KINDS.items()}
    if dataset.target == "shares":
        del paths[0]
    elif not paths[0].exists():
        LOG.warning("%s: no such file; no species is known to be absent in any row", paths[0])
        del paths[0]
    tables = [_read(path, kind, dataset) for kind, path in paths.items()]
    frame = pd.concat(tables, ignore_index=True)
    _check_contradictions(frame, list(paths.values()), [len(table) for table in tables])
    frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount().astype("int64")
    lengths = _lengths(data / "train", frame["eeg_id"])
    files = tuple((path, len(table)) for path, table in zip(paths.values(), tables, strict=True))
    _check_ends(frame, lengths, files)
    middle = (frame["t_min"] + frame["t_max"]).to_numpy(np.float64) / 2
    frame = _with_offsets(frame, inward(middle - dataset.window_s / 2, lengths, dataset))
    return LabelTable(path=data / POSITIVES_NAME, frame=frame, labelled=True, dataset=dataset, files=files)


def unlabelled_windows(data: Path, dataset: Dataset) -> LabelTable:
    """List the rows of DATA/test/*: windows every `test_step_s`, the last one at the recording's end.

    A recording that is damaged or too short has one row, which `render` rejects. Raises UserError without recordings
    and for names that are not hexadecimal.
    """
    folder = data / "test"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected recordings, <recording_id>.flac or .wav")
    numbers = sorted({_number(path) for path in folder.iterdir() if path.suffix in SUFFIXES})
    if not numbers:
        raise UserError(f"{folder}: no recordings; expected <recording_id>.flac or .wav")
    rows: list[dict[str, Any]] = []
    for number in numbers:
        length = length_s(audio_path(folder, recording_name(number)))
        starts = [0.0] if length is None else window_starts(length, dataset)
        rows += [{"eeg_id": number, "eeg_sub_id": place, "start": start} for place, start in enumerate(starts)]
    frame = pd.DataFrame(rows)
    for name in BOX_COLUMNS:
        frame[name] = pd.array([None] * len(frame), "Int64") if name == "songtype_id" else np.nan
    for name in dataset.vote_columns:
        frame[name] = pd.array([None] * len(frame), "Int64")
    frame = _with_offsets(frame, frame.pop("start").to_numpy(np.float64))
    return LabelTable(path=folder, frame=frame, labelled=False, dataset=dataset)


def window_starts(length: float, dataset: Dataset) -> list[float]:
    """Starts of the windows of a recording without labels, seconds."""
    last = max(length - dataset.window_s, 0.0)
    regular = np.arange(0, last, dataset.test_step_s or dataset.window_s / 2)
    return [*regular[regular < last - 1e-6].tolist(), last]


def inward(starts: Floats, lengths: Floats, dataset: Dataset) -> Floats:
    """Move windows [n] that reach beyond an end of their recording inwards; an unknown length (NaN) has no end."""
    return np.maximum(np.fmin(starts, lengths - dataset.window_s), 0.0)


def _number(path: Path) -> int:
    try:
        return recording_number(path.stem)
    except ValueError as error:
        raise UserError(f"{path}: {error} before {path.suffix}; rename the file") from error


def _read(path: Path, kind: int, dataset: Dataset) -> pd.DataFrame:
    """Read one table: ids, boxes and votes, in file order."""
    table = CsvTable(path, "a table of annotations")
    table.check_names(list(COLUMNS), list(COLUMNS))
    if not len(table):
        raise UserError(f"{path}: no rows; expected at least one annotation")
    frame = pd.DataFrame({"eeg_id": numbers_of(table, "recording_id")})
    species = table.integers("species_id")
    unknown = np.flatnonzero(species >= dataset.num_classes)
    if unknown.size:
        last = dataset.num_classes - 1
        raise table.refusal(int(unknown[0]), "species_id", f"0 to {last}, the classes of {dataset.name}")
    for name in ("t_min", "t_max", "f_min", "f_max"):
        frame[name] = table.numbers(name, MAX_OFFSET_S)
    frame["songtype_id"] = pd.array(table.integers("songtype_id"), "Int64")
    for low, high in (("t_min", "t_max"), ("f_min", "f_max")):
        bad = np.flatnonzero(~(frame[low] < frame[high]).to_numpy())
        if bad.size:
            raise table.refusal(int(bad[0]), high, f"more than {low} ({frame[low].iloc[bad[0]]:g})")
    # Shares have no unknown cell: the annotated species has the row's only vote.
    rest = None if dataset.target == "yes_no" else 0
    votes = {
        name: pd.array([kind if one == number else rest for one in species], "Int64")
        for number, name in enumerate(dataset.vote_columns)
    }
    return pd.concat([frame, pd.DataFrame(votes)], axis=1).assign(species=species, positive=kind)


def _check_contradictions(frame: pd.DataFrame, paths: list[Path], counts: list[int]) -> None:
    """Raise UserError for a box that both tables have."""
    box = ["eeg_id", "species", "t_min", "t_max"]
    both = frame.groupby(box)["positive"].transform("nunique").to_numpy() > 1
    if both.any():
        place = int(np.flatnonzero(both & (frame["positive"] == 0).to_numpy())[0])
        row, name = place - counts[0], recording_name(int(frame["eeg_id"].iloc[place]))
        raise UserError(
            f"{paths[1]}: row {row + 2}: {paths[0].name} has the same box of species {frame['species'].iloc[place]} in "
            f"recording {name}; it is there or it is not; remove one"
        )


def _lengths(folder: Path, numbers: "pd.Series[int]") -> Floats:
    """Length of each row's recording, seconds; NaN where it cannot be read, which `render` reports."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected recordings, <recording_id>.flac or .wav")
    found: dict[int, float] = {}
    for number in numbers.unique():
        try:
            length = length_s(audio_path(folder, recording_name(number)))
        except UserError:
            length = None
        found[number] = np.nan if length is None else length
    return np.asarray(numbers.map(found), np.float64)


def _check_ends(frame: pd.DataFrame, lengths: Floats, files: tuple[tuple[Path, int], ...]) -> None:
    """Raise UserError for a box that ends after its recording."""
    beyond = np.flatnonzero(frame["t_max"].to_numpy() > lengths + _TOLERANCE_S)
    if beyond.size:
        row, (path, count) = int(beyond[0]), files[0]
        found = f"t_max {frame['t_max'].iloc[row]:g}, recording {recording_name(frame['eeg_id'].iloc[row])} ends at"
        if row >= count:
            row, path = row - count, files[1][0]
        raise UserError(f"{path}: row {row + 2}: {found} {lengths[beyond[0]]:g} s; fix the box or the recording")


def _with_offsets(frame: pd.DataFrame, starts: Floats) -> pd.DataFrame:
    """Add the columns that rows of EEG have. A recording is its own group: it is never in two folds."""
    numbers = frame["eeg_id"].to_numpy(np.int64)
    frame = frame.drop(columns=["species", "positive"], errors="ignore")
    return frame.assign(
        spectrogram_id=numbers, patient_id=numbers,
        eeg_label_offset_seconds=starts, spectrogram_label_offset_seconds=starts,
    )  # fmt: skip
