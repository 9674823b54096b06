"""Data-wide statistics: values that a canvas needs from many rows of a shard set before it can be drawn."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.normalise import DataWide
from hms_dist.canvas.options import CanvasConfig, Placement
from hms_dist.core.logging import LOG
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Batch, Request, load
from hms_dist.train.data.run_data import ShardSet

GROUP_ROWS = 32
"""Rows read and reduced together. All rows are cut into groups before they are distributed to ranks, so that sums do
not depend on the number of ranks."""


def is_open(placement: Placement) -> bool:
    """Whether a placement's statistics are not yet computed."""
    return isinstance(placement.normalise, DataWide) and placement.normalise.mean is None


def needs_statistics(canvas: CanvasConfig) -> bool:
    """Whether any placement's statistics are not yet computed."""
    return any(map(is_open, canvas.placements))


def row_moments(
    shards: ShardSet, rows: Rows, *, threads: int, rank: int = 0, num_ranks: int = 1
) -> tuple[Rows, NDArray[np.float64]]:
    """A rank's part of `rows`, and the moments of every open placement for each row: float64 [rows, placements, 3]."""
    config = shards.canvas.config
    wanted = tuple(filter(is_open, config.placements))
    shown = {item.panel for item in wanted}
    drawn = {name: one for name, one in config.drawn.items() if name in shown}
    canvas = Canvas(replace(config, placements=wanted, drawn=drawn), shards.manifest.panels, flips=False)
    groups = [rows[first : first + GROUP_ROWS] for first in range(0, len(rows), GROUP_ROWS)][rank::num_ranks]
    reader = shards.reader_of(canvas.panels)
    found = [_moments(canvas, batch) for batch in load(reader, map(Request, groups), threads=threads)]
    reader.close()
    return np.concatenate([rows[:0], *groups]), np.concatenate([np.empty((0, len(wanted), 3)), *found])


def filled(canvas: CanvasConfig, moments: NDArray[np.float64]) -> CanvasConfig:
    """Return `canvas` with the statistics of rows with these `moments` [rows, open placements, 3], in their order."""
    columns = iter(torch.from_numpy(moments).unbind(1))
    return replace(canvas, placements=tuple(_filled(item, columns) for item in canvas.placements))


def _filled(placement: Placement, columns: Iterator[torch.Tensor]) -> Placement:
    """Return `placement`; if it is open, with the statistics of the next of `columns` [rows, 3]."""
    if not is_open(placement) or not isinstance(placement.normalise, DataWide):
        return placement
    moments = next(columns)
    known = placement.normalise.with_moments(moments)
    LOG.info(
        "'%s' over %d rows: mean %.6f, standard deviation %.6f ln(power)",
        placement.panel, len(moments), known.mean, known.deviation,
    )  # fmt: skip
    return replace(placement, normalise=known)


def _moments(canvas: Canvas, batch: Batch) -> NDArray[np.float64]:
    """Moments of each row of a batch [rows, placements, 3]."""
    found, panels = [], canvas.with_drawn(batch.panels)
    for item in canvas.placed:
        assert isinstance(item.placement.normalise, DataWide)
        found.append(item.placement.normalise.moments(item.values(panels)))
    return torch.stack(found, dim=1).numpy()
