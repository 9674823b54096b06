"""The page of an import: which channels, rates, units and labels were found, what was assumed, and some windows."""

import base64
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hms_dist.core.files import atomic
from hms_dist.core.signal_format import CHANNELS, RATE_HZ, WINDOW_SAMPLES
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.panels.panel import Panel, Window
from hms_dist.panels.traces import WIDTH, Traces
from hms_dist.recordings.reader import Recording, RecordingReader
from hms_dist.report.page_template import rendered
from hms_dist.report.picture import Picture
from hms_dist.report.recording_window import window_pictures

PAGE_NAME = "import_report.html"
MOST_RECORDINGS = 500
"""Most recordings that the table lists; all are in recordings.csv."""
_PANELS: dict[str, Panel] = {
    "Central 20 seconds, from top to bottom: left and right parasagittal chain, left and right temporal chain, "
    "midline, EKG, C3.": Traces(),
    "10 minutes, from top to bottom: LL, RL, LP and RP, each from 0.6 (bottom) to 20 Hz.": KaggleSpectrogram(),
}


def write_import_page(
    out: Path, split: str, values: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], num_pictures: int
) -> None:
    """Write OUT/import_report.html from import_report.json (`values`) and the label rows."""
    content = rendered(
        "import.html",
        found=values,
        length=_length(3600 * values["hours"]),
        recordings=[_recording(one) for one in values["recordings"][:MOST_RECORDINGS]],
        most=MOST_RECORDINGS,
        warnings=_counted(values["recordings"], "warnings"),
        assumed=_counted(values["recordings"], "assumed"),
        pictures=_pictures(out, split, rows, num_pictures, values["dataset"]["classes"]),
    )
    with atomic(out / PAGE_NAME) as file:
        file.write(content.encode(errors="backslashreplace"))


def _recording(one: Mapping[str, Any]) -> list[str]:
    """Cells of a recording in the table."""
    closure = "" if one["closure_uv"] is None else f"{one['closure_uv']:.1f} uV"
    return [
        str(one["recording"]),
        str(one["patient_id"]),
        one["format"],
        _length(one["length_s"]),
        ", ".join(f"{rate:g}" for rate in one["rates_hz"]),
        f"{len(CHANNELS) - len(one['missing'])} of {one['num_channels']}",
        one["montage"],
        closure,
        ", ".join(one["missing"]) or "none",
        f"{one['gaps']} ({one['gaps_s']:g} s)" if one["gaps"] else "none",
        "" if one["amplitude_uv"] is None else f"{one['amplitude_uv']:.0f} uV",
        one["labels"],
        str(one["num_rows"]),
    ]


def _length(length_s: float) -> str:
    minutes, seconds = divmod(round(length_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _counted(recordings: Sequence[Mapping[str, Any]], name: str) -> list[list[str]]:
    """Each sentence, the number of recordings that it holds for, and the first of them."""
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    for one in recordings:
        for line in dict.fromkeys(one[name]):
            counts[line] += 1
            first.setdefault(line, one["recording"])
    return [[line, str(count), str(first[line])] for line, count in counts.most_common(MOST_RECORDINGS)]


def _pictures(
    out: Path, split: str, rows: Sequence[Mapping[str, Any]], number: int, classes: Sequence[str]
) -> list[dict[str, Any]]:
    """Draw windows that are spread evenly over the label rows."""
    places = np.unique(np.linspace(0, len(rows) - 1, number + 2)[1:-1].round().astype(int)).tolist()
    reader = RecordingReader(out, split)  # type: ignore[arg-type]
    pictures = []
    for place in places:
        row = rows[place]
        recording = reader.read(row["eeg_id"], row["spectrogram_id"])
        start = round(row["eeg_label_offset_seconds"] * RATE_HZ)
        votes = {name: row[f"{name}_vote"] for name in classes if row[f"{name}_vote"]}
        middle_s = row["spectrogram_label_offset_seconds"]
        pictures.append(
            {
                "key": f"{row['eeg_id']}-{row['eeg_sub_id']}",
                "recording": row["spectrogram_id"],
                "middle": _length(middle_s),
                "votes": ", ".join(f"{name} {count}" for name, count in votes.items()) or "not labelled",
                "pictures": [
                    (caption, _png(picture)) for caption, picture in _window(recording, start, middle_s).items()
                ],
            }
        )
    return pictures


def _window(recording: Recording, start: int, spectrogram_offset_s: float) -> dict[str, Picture]:
    """Draw one window, by caption: the central 20 s as traces, and the 10-minute spectrogram. `start`: first EEG
    sample."""
    end = start + WINDOW_SAMPLES
    # Filters run over the recording: a minute before and after is enough, where hours would take long.
    first, last = max(0, start - 60 * RATE_HZ), min(len(recording.eeg), end + 60 * RATE_HZ)
    near = dataclasses.replace(recording, eeg=recording.eeg[first:last])
    window = Window(recording=near, start=start - first, spectrogram_offset_s=spectrogram_offset_s)
    pictures = window_pictures(_PANELS, window)
    return {caption: one.repeat(max(1, WIDTH // one.shape[1]), axis=1) for caption, one in pictures.items()}


def _png(picture: Picture) -> str:
    content = BytesIO()
    Image.fromarray(picture).save(content, format="png")
    return base64.b64encode(content.getvalue()).decode()
