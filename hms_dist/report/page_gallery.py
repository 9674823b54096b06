"""Gallery of the rows that a run predicts best and worst: canvas, votes and prediction of each."""

import base64
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.report.labelled import save_labelled
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import Floats, Labels, ScoredTable
from hms_dist.report.show import label_texts
from hms_dist.shards.index import Rows
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import ShardSet, open_shards


def check_gallery() -> None:
    """Raise UserError if the pictures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "gallery: its pictures need matplotlib, which is not installed; pip install 'hms-dist[report]', or give "
            "--gallery 0"
        )


def gallery_values(
    runs: Sequence[RunFacts], tables: Sequence[ScoredTable], labels: Labels | None, num_rows: int
) -> dict[str, Any]:
    """Values of gallery.html: `num_rows` best and as many worst rows of the run with the lowest KL or log loss, or
    the reason why not.

    `tables` are the runs' own.
    """
    own = {item.name: item for item in tables}
    scored = [(own[run.name], run) for run in runs if run.name in own]
    if labels is None or not scored:
        why = "it needs a run that has validated and the shard set that it was trained on (--runs and --shards)."
        return {"missing": why}
    item, run = min(scored, key=lambda pair: pair[0].value)
    try:
        shards = open_shards(labels.location, read_canvas(run.folder), flips=False, storage=run.config.storage)
    except UserError as error:
        return {"missing": f"the canvas of {run.name} cannot be drawn ({error})."}
    best, worst = best_and_worst(item.row_values, shards.index.ids("eeg_id")[item.rows], num_rows)
    rows = [
        {"heading": f"{heading} {rank}", **_row(shards, item, int(place))}
        for heading, places in (("Best", best), ("Worst", worst))
        for rank, place in enumerate(places, start=1)
    ]
    return {"missing": "", "run": run.name, "num_rows": len(item.rows), "rows": rows}


def best_and_worst(row_values: Floats, eeg_ids: NDArray[np.int64], num_rows: int) -> tuple[Rows, Rows]:
    """Positions of the `num_rows` lowest and highest of `row_values` [rows], the lowest and the highest first.

    One row per EEG (`eeg_ids` [rows]), because its rows look alike. No row is in both, so there may be fewer.
    Rows with NaN are in neither.
    """
    order = np.argsort(row_values, kind="stable")
    order = order[np.isfinite(row_values[order])]
    low, high = (_one_each(eeg_ids, places)[:num_rows] for places in (order, order[::-1]))
    num_rows = min(num_rows, len(order) // 2, len(low))
    return low[:num_rows], high[:num_rows][~np.isin(high[:num_rows], low[:num_rows])]


def _one_each(eeg_ids: NDArray[np.int64], places: Rows) -> Rows:
    """The first of `places` of each EEG, in their order."""
    _, first = np.unique(eeg_ids[places], return_index=True)
    return places[np.sort(first)]


def _row(shards: ShardSet, item: ScoredTable, place: int) -> dict[str, Any]:
    row = int(item.rows[place])
    key = str(shards.index.frame["key"].iloc[row])
    return {
        "key": key,
        "value": item.row_values[place],
        "votes": shards.index.votes[row] if shards.dataset.target == "shares" else None,
        "label": ", ".join(label_texts(shards.index, row)),
        "truth": item.truth[place],
        "prediction": item.prediction[place],
        "png": _png(shards, row, key),
    }


def _png(shards: ShardSet, row: int, key: str) -> str:
    """The row's canvas with its axes, as base64."""
    panels = {name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([row])).items()}
    image = shards.canvas(panels)[0, 0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canvas.png"
        save_labelled(path, shards.canvas, image, title=key, flip=False)
        return base64.b64encode(path.read_bytes()).decode()
