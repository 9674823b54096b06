"""Section of clips of audio: the probabilities of their windows over time beside the annotations, and the spectrogram
with their boxes."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.datasets import Dataset
from hms_dist.labels.recording_ids import recording_name
from hms_dist.recordings.audio import AudioRecording, is_audio, read_audio
from hms_dist.report.clip_picture import Annotation, clip_part
from hms_dist.report.page_charts import Curve, Span, legend, timeline_chart
from hms_dist.report.page_runs import short_names
from hms_dist.report.page_scores import Floats
from hms_dist.report.page_training import NONE
from hms_dist.report.sheet import sheet
from hms_dist.results.lineage import held_out_rows, read_sources
from hms_dist.results.predictions import TIME_COLUMN, dataset_of_table, read_predictions
from hms_dist.shards.index import Index

MOST_CURVES = 5
"""Classes in a chart: those with the highest maxima."""
MOST_CLASSES = 8
"""Most classes in a chart, with the annotated ones."""
QUALITY: dict[str, Any] = {"quality": 75, "method": 4}
"""Of spectrograms, as WebP."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """Predictions of windows of recordings of audio."""

    name: str
    dataset: Dataset
    numbers: NDArray[np.int64]
    """Recording of each window [rows]."""
    times_s: Floats
    """Middle of each window [rows]."""
    values: Floats
    """Probabilities [rows, classes]."""
    unseen: NDArray[np.bool_]
    """Whether no model behind the table is known to have trained on the recording [rows]."""


def read_windows(paths: Sequence[Path], dataset: Dataset | None) -> list[Windows]:
    """Read tables of windows, of `dataset` or, if None, of the first table's. Raises UserError for a table of another
    data set, or without times."""
    dataset = dataset or dataset_of_table(paths[0]) if paths else dataset
    found = []
    for path, name in zip(paths, short_names(paths), strict=True):
        assert dataset is not None
        table = read_predictions(path, dataset)
        if dataset.signal != "audio" or TIME_COLUMN not in table:
            raise UserError(
                f"{path}: has no windows of audio (column {TIME_COLUMN}); expected a table of hms-dist predict of "
                "clips, or of a set rendered from them"
            )
        times_s = np.asarray(table[TIME_COLUMN], np.float64)
        if not (np.isfinite(times_s) & (times_s >= 0)).all():
            raise UserError(f"{path}: column {TIME_COLUMN}: expected seconds, 0 or more; predict again")
        numbers, folds = table["eeg_id"].to_numpy(np.int64), table["fold"].to_numpy(np.int64, na_value=-1)
        order = np.lexsort((times_s, numbers))
        unseen = held_out_rows(read_sources(path), folds, numbers)
        values = table[list(dataset.classes)].to_numpy(np.float64)
        found.append(
            Windows(
                name=name, dataset=dataset, numbers=numbers[order], times_s=times_s[order], values=values[order],
                unseen=unseen[order],
            )
        )  # fmt: skip
    return found


def clips_values(tables: Sequence[Windows], index: Index | None, data: Path | None, num_clips: int) -> dict[str, Any]:
    """Values of clips.html: `num_clips` recordings of each table, annotated ones first, then those with the highest
    probability.

    `index`: rows with annotations. `data`: folder of the recordings.
    """
    clips = []
    for table in tables:
        for number in chosen_clips(table, index, num_clips):
            mine = table.numbers == number
            found = annotations_of(index, int(number))
            clips.append(_clip(table, int(number), mine, found, data))
    return {"clips": clips, "clips_missing": "" if tables else _MISSING}


_MISSING = (
    "it needs predictions of windows; hms-dist predict --recording CLIP writes those of a clip, and predict of a test "
    "set those of all its recordings; give the tables as --windows."
)


def chosen_clips(table: Windows, index: Index | None, num_clips: int) -> list[int]:
    """Numbers of the recordings to draw: those with a present class first, then those with any annotation, then the
    others, each by their highest probability."""

    def rank(number: int) -> tuple[bool, bool, float]:
        found = annotations_of(index, number)
        highest = float(table.values[table.numbers == number].max())
        return not any(one.is_there for one in found), not found, -highest

    return sorted(np.unique(table.numbers).tolist(), key=rank)[:num_clips]


def annotations_of(index: Index | None, number: int) -> list[Annotation]:
    """The annotations of a recording in a shard set, by time."""
    if index is None or not index.labelled:
        return []
    found = []
    for row in np.flatnonzero(index.ids("eeg_id") == number):
        begin, end, low, high = (float(index.frame[name].iloc[row]) for name in ("t_min", "t_max", "f_min", "f_max"))
        targets = index.targets[row]
        known = np.isfinite(targets) if index.dataset.target == "yes_no" else targets > 0
        found += [
            Annotation(index.dataset.classes[place], bool(targets[place] > 0), (begin, end, low, high))
            for place in np.flatnonzero(known)
        ]
    return sorted(found, key=lambda one: one.box)


def shown_classes(values: Floats, annotated: Sequence[int]) -> list[int]:
    """Classes of the chart of a clip, from its probabilities [windows, classes]: those with the highest maxima, then
    further `annotated` ones."""
    order = np.argsort(-values.max(axis=0), kind="stable")[:MOST_CURVES].tolist()
    return list(dict.fromkeys([*order, *annotated]))[:MOST_CLASSES]


def _clip(
    table: Windows, number: int, mine: NDArray[np.bool_], annotations: Sequence[Annotation], data: Path | None
) -> dict[str, Any]:
    """Values of one article."""
    dataset, times_s, values = table.dataset, table.times_s[mine], table.values[mine]
    names, name = list(dataset.classes), recording_name(number)
    annotations = sorted(annotations, key=lambda one: not one.is_there)  # present ones are never left out
    shown = shown_classes(values, [names.index(one.name) for one in annotations])
    picture, why, end_s = None, "", float(times_s[-1] + dataset.window_s / 2)
    if data is not None:
        try:
            clip = _read(data, name, dataset)
            end_s = clip.samples.shape[1] / clip.rate_hz
            content = sheet([clip_part(clip, annotations)], title=name, file_format="webp", **QUALITY)
            picture, why = base64.b64encode(content).decode(), ""
        except UserError as error:
            why = str(error)
    chart = timeline_chart(
        f"Probabilities of {name} over time",
        [Curve(names[place], at, times_s, values[:, place]) for at, place in enumerate(shown)],
        [
            Span(shown.index(names.index(one.name)), one.box[0], one.box[1], one.is_there, _span_text(one))
            for one in annotations
            if names.index(one.name) in shown
        ],
        end_s,
    )
    steps = np.unique(np.round(np.diff(times_s), 3))
    return {
        "name": name,
        "table": table.name,
        "seen": not table.unseen[mine].all(),
        "num_windows": len(times_s),
        "window_s": dataset.window_s,
        "step_s": float(steps[-1]) if len(steps) else None,
        "annotations": len(annotations),
        "picture": picture,
        "no_picture": why,
        "legend": legend([names[place] for place in shown]),
        "chart": chart,
        "lines": [_line(names[place], times_s, values[:, place], annotations) for place in shown],
    }


def _line(name: str, times_s: Floats, values: Floats, annotations: Sequence[Annotation]) -> list[str]:
    """Cells of one class: its highest probability, the middle of that window, and its annotated seconds."""
    best = int(values.argmax())
    own = [_span_text(one).removeprefix(f"{name} ") for one in annotations if one.name == name]
    return [name, f"{values[best]:.3f}", f"{times_s[best]:g} s", "; ".join(own) or NONE]


def _span_text(one: Annotation) -> str:
    begin, end, low, high = one.box
    return f"{one.name} {'yes' if one.is_there else 'no'}, {begin:.1f} to {end:.1f} s, {low:.0f} to {high:.0f} Hz"


def _read(data: Path, name: str, dataset: Dataset) -> AudioRecording:
    """Read a recording of either split. Raises UserError if neither has it, and as `read_audio`."""
    found = [path for split in ("train", "test") for path in (data / split).glob(f"{name}.*") if is_audio(path)]
    if not found:
        raise UserError(f"{data}: neither train nor test has {name}.flac or .wav; check --data")
    return read_audio(found[0], dataset.rate_hz)
