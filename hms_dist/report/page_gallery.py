"""Gallery of the rows that a run predicts best and worst of each class: panels for a reader, canvas, attribution, votes
and prediction of each."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hms_dist.core.errors import UserError
from hms_dist.labels.recording_ids import recording_name
from hms_dist.report.attribution import Attribution
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import Floats, Labels, ScoredTable
from hms_dist.report.picture import gray
from hms_dist.report.sheet import sheet
from hms_dist.report.show import label_texts, row_parts
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.read.reader import ShardReader
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import ShardSet, open_shards

MAX_ROWS = 60
"""Most rows drawn: with many classes, each has fewer of them."""
QUALITY: dict[str, Any] = {"quality": 70, "method": 4}
"""Of the pictures, as WebP."""
LEAST_WIDTH = 480
"""Smaller canvases are enlarged to about this width, pixels."""


def gallery_values(
    runs: Sequence[RunFacts], tables: Sequence[ScoredTable], labels: Labels | None, num_rows: int, *, attribution: bool
) -> dict[str, Any]:
    """Values of gallery.html: `num_rows` best and as many worst rows of each class, of the run with the lowest KL or
    log loss, or the reason why not.

    `tables` are the runs' own. `attribution`: whether to compute attributions, if the run has its weights.
    """
    own = {item.name: item for item in tables}
    scored = [(own[run.name], run) for run in runs if run.name in own]
    if labels is None or not scored:
        why = "it needs a run that has validated and the shard set that it was trained on (--runs and --shards)."
        return {"missing": why, "audio": labels is not None and labels.index.dataset.signal == "audio"}
    item, run = min(scored, key=lambda pair: pair[0].value)
    try:
        shards = open_shards(labels.location, read_canvas(run.folder), flips=False, storage=run.config.storage)
    except UserError as error:
        why = f"the canvas of {run.name} cannot be drawn ({error})."
        return {"missing": why, "audio": labels.index.dataset.signal == "audio"}
    attributed, why = None, "left out (--attribution false)"
    if attribution:
        try:
            attributed, why = Attribution(run, shards), ""
        except UserError as error:
            why = str(error)
    drawer = _Drawer(shards, item, attributed)
    chosen = chosen_rows(item.row_values, item.metric.labels(item.truth), drawer.eeg_ids, num_rows)
    rows = [
        {"heading": f"{_class_name(item, of_class)}, {kind} {rank}", "kind": kind, **drawer.row(place)}
        for of_class, kind, rank, place in chosen
    ]
    is_audio = labels.index.dataset.signal == "audio"
    return {
        "missing": "",
        "audio": is_audio,
        "run": run.name,
        "num_rows": len(item.rows),
        "rows": rows,
        "no_attribution": why,
    }


def where_of(index: Index, row: int) -> str:
    """Recording and seconds of a row of audio, whose key has a number in place of the recording's name; else empty."""
    if index.dataset.signal == "eeg":
        return ""
    start = float(index.frame["eeg_label_offset_seconds"].iloc[row])
    name = recording_name(int(index.ids("eeg_id")[row]))
    return f"Recording {name}, {start:.2f} to {start + index.dataset.window_s:.2f} s."


def _class_name(item: ScoredTable, number: int) -> str:
    return item.classes[number] if number >= 0 else "no class"


def chosen_rows(
    row_values: Floats, labels: Floats, eeg_ids: NDArray[np.int64], num_rows: int
) -> list[tuple[int, str, int, int]]:
    """Class (-1: none is present), worst or best, rank from 1 and position of the rows to draw, by class.

    `labels` [rows, classes]: 1 where a row is of a class. A row appears once, under the first class that takes it. At
    most MAX_ROWS, the lowest ranks of all classes.
    """
    masks = {number: labels[:, number] == 1 for number in range(labels.shape[1])}
    masks[-1] = ~(labels == 1).any(axis=1)
    found: list[tuple[int, str, int, int]] = []
    taken: set[int] = set()
    for of_class, mask in masks.items():
        places = np.flatnonzero(mask)
        best, worst = best_and_worst(row_values[places], eeg_ids[places], num_rows)
        for kind, some in (("worst", worst), ("best", best)):
            for rank, place in enumerate(places[some].tolist(), start=1):
                if place not in taken:
                    taken.add(place)
                    found.append((of_class, kind, rank, place))
    kept = sorted(found, key=lambda one: one[2])[:MAX_ROWS]
    return [one for one in found if one in kept]


def best_and_worst(row_values: Floats, eeg_ids: NDArray[np.int64], num_rows: int) -> tuple[Rows, Rows]:
    """Positions of the `num_rows` lowest and highest of `row_values` [rows], the lowest and the highest first.

    One row per EEG (`eeg_ids` [rows]), because its rows look alike. No row is in both, so there may be fewer; a single
    row is among the worst. Rows with NaN are in neither.
    """
    order = np.argsort(row_values, kind="stable")
    order = order[np.isfinite(row_values[order])]
    low, high = (_one_each(eeg_ids, places)[:num_rows] for places in (order, order[::-1]))
    num_worst = min(num_rows, (len(order) + 1) // 2, len(high))
    num_best = min(num_rows, len(order) // 2, len(low))
    high = high[:num_worst]
    low = low[~np.isin(low, high)][:num_best]
    return low, high


def _one_each(eeg_ids: NDArray[np.int64], places: Rows) -> Rows:
    """The first of `places` of each EEG, in their order."""
    _, first = np.unique(eeg_ids[places], return_index=True)
    return places[np.sort(first)]


class _Drawer:
    """Draws the rows of a table."""

    def __init__(self, shards: ShardSet, item: ScoredTable, attribution: Attribution | None) -> None:
        self._shards, self._item, self._attribution = shards, item, attribution
        flipped = {placed.placement.flipped_panel for placed in shards.canvas.placed}
        names = [name for name in shards.manifest.panels if name not in flipped]
        self._reader: ShardReader = shards.reader_of(names)
        self.eeg_ids = shards.index.ids("eeg_id")[item.rows]

    def row(self, place: int) -> dict[str, Any]:
        """Values of one article of gallery.html."""
        shards, item, row = self._shards, self._item, int(self._item.rows[place])
        key, index = str(shards.index.frame["key"].iloc[row]), shards.index
        panels = {name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([row])).items()}
        image = shards.canvas(panels)
        parts = row_parts(shards.manifest, index, self._reader, row)
        labels, decisions = (
            table[0] == 1
            for table in (
                item.metric.labels(item.truth[place : place + 1]),
                item.metric.decisions(item.prediction[place : place + 1]),
            )
        )
        known = np.isfinite(item.truth[place])
        return {
            "key": key,
            "where": where_of(index, row),
            "value": item.row_values[place],
            "votes": index.votes[row] if shards.dataset.target == "shares" else None,
            "label": ", ".join(label_texts(index, row)),
            "classes": " ".join(name for name, is_one in zip(item.classes, labels, strict=True) if is_one),
            "is_right": bool((labels == decisions)[known].all()),
            "truth": item.truth[place],
            "prediction": item.prediction[place],
            "panels": _text(sheet(parts, title=key, file_format="webp", **QUALITY)),
            "canvas": _picture(_shade(image[0, 0].numpy())),
            "attribution": None if self._attribution is None else self._heat(image),
        }

    def _heat(self, image: torch.Tensor) -> str:
        """The canvas in gray with its attribution in colour."""
        from matplotlib import colormaps

        assert self._attribution is not None
        heat = self._attribution(image)
        colour = colormaps["inferno"](heat)[..., :3] * 255
        share = (0.25 + 0.75 * heat)[..., None]
        mixed = share * colour + (1 - share) * 0.6 * _shade(image[0, 0].numpy())[..., None]
        return _picture(np.rint(mixed).astype(np.uint8))


def _shade(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    return gray(image, low=min(0.0, float(image.min())), high=max(1.0, float(image.max())))


def _picture(pixels: NDArray[np.uint8]) -> str:
    """WebP as base64, enlarged if it is small."""
    times = -(-LEAST_WIDTH // pixels.shape[1])
    content = io.BytesIO()
    Image.fromarray(pixels.repeat(times, axis=0).repeat(times, axis=1)).save(content, format="webp", **QUALITY)
    return _text(content.getvalue())


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
