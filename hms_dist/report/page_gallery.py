"""Gallery of the rows that a run predicts best and worst: canvas, votes and prediction of each."""

import base64
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.labels.table import CLASSES
from hms_dist.report.labelled import save_labelled
from hms_dist.report.page_html import Html, barred, escaped, missing, paragraph, section, table
from hms_dist.report.page_runs import RunFacts
from hms_dist.report.page_scores import Floats, Labels, ScoredTable
from hms_dist.shards.index import Rows
from hms_dist.train.data.run_canvas import read_canvas
from hms_dist.train.data.run_data import ShardSet, open_shards

HEADING = "Best and worst rows"
EXPLAINED = (
    "The rows of its validation fold that a run predicts best and worst, one of an EEG at most, as its model sees "
    "them, with the experts' votes next to its prediction."
)


def check_gallery() -> None:
    """Raise UserError if the pictures cannot be drawn."""
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError(
            "gallery: its pictures need matplotlib, which is not installed; pip install 'hms-dist[report]', or give "
            "--gallery 0"
        )


def gallery_section(
    runs: Sequence[RunFacts], tables: Sequence[ScoredTable], labels: Labels | None, num_rows: int
) -> Html:
    """Draw `num_rows` best and as many worst rows of the run with the lowest KL; `tables` are the runs' own."""
    own = {item.name: item for item in tables}
    scored = [(own[run.name], run) for run in runs if run.name in own]
    if labels is None or not scored:
        why = "it needs a run that has validated and the shard set that it was trained on (--runs and --shards)."
        return section(HEADING, EXPLAINED, missing(why))
    item, run = min(scored, key=lambda pair: pair[0].scores["kl"])
    try:
        shards = open_shards(labels.location, read_canvas(run.folder), flips=False, storage=run.config.storage)
    except UserError as error:
        return section(HEADING, EXPLAINED, missing(f"the canvas of {run.name} cannot be drawn ({error})."))
    best, worst = best_and_worst(item.row_kl, shards.index.ids("eeg_id")[item.rows], num_rows)
    parts = [paragraph(f"Of {run.name}, the run with the lowest KL; {len(item.rows)} rows.")]
    for heading, places in (("Best", best), ("Worst", worst)):
        parts += [_article(heading, rank, shards, item, int(place)) for rank, place in enumerate(places, start=1)]
    return section(HEADING, EXPLAINED, *parts)


def best_and_worst(row_kl: Floats, eeg_ids: NDArray[np.int64], num_rows: int) -> tuple[Rows, Rows]:
    """Positions of the `num_rows` lowest and highest of `row_kl` [rows], the lowest and the highest first.

    One row per EEG (`eeg_ids` [rows]), because its rows look alike. No row is in both, so there may be fewer.
    """
    order = np.argsort(row_kl, kind="stable")
    low, high = (_one_each(eeg_ids, places)[:num_rows] for places in (order, order[::-1]))
    num_rows = min(num_rows, len(order) // 2, len(low))
    return low[:num_rows], high[:num_rows][~np.isin(high[:num_rows], low[:num_rows])]


def _one_each(eeg_ids: NDArray[np.int64], places: Rows) -> Rows:
    """The first of `places` of each EEG, in their order."""
    _, first = np.unique(eeg_ids[places], return_index=True)
    return places[np.sort(first)]


def _article(heading: str, rank: int, shards: ShardSet, item: ScoredTable, place: int) -> Html:
    row = int(item.rows[place])
    key = str(shards.index.frame["key"].iloc[row])
    votes = shards.index.votes[row]
    title = f"{heading} {rank}: {key}"
    consensus, guess = CLASSES[votes.argmax()], CLASSES[item.prediction[place].argmax()]
    alt = f"Canvas of {key}; most votes for {consensus}, predicted {guess}"
    head = ["class", "votes", "share", "predicted"]
    rows = [
        [name, str(count), barred(f"{share:.1%}", share, 0), barred(f"{value:.1%}", value, 1)]
        for name, count, share, value in zip(CLASSES, votes, item.truth[place], item.prediction[place], strict=True)
    ]
    return Html(
        f"<article><h3>{escaped(title)}</h3>\n{paragraph(f'KL {item.row_kl[place]:.4f}, votes: {votes.sum()}.')}"
        f"{_picture(shards, row, key, alt)}"
        f"{table(f'Votes and prediction of {key}', head, rows)}</article>\n"
    )


def _picture(shards: ShardSet, row: int, key: str, alt: str) -> Html:
    """The row's canvas with its axes, as an image within the page."""
    panels = {name: torch.from_numpy(array) for name, array in shards.reader.read(np.array([row])).items()}
    image = shards.canvas(panels)[0, 0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "canvas.png"
        save_labelled(path, shards.canvas, image, title=key, flip=False)
        content = base64.b64encode(path.read_bytes()).decode()
    source = f"data:image/png;base64,{content}"
    return Html(
        f'<div class="picture" tabindex="0" role="region" aria-label="{escaped(f"Picture of {key}")}">'
        f'<img alt="{escaped(alt)}" src="{source}"></div>\n'
    )
