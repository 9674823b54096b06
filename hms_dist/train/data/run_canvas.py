"""The canvas of a run with data-wide statistics of its training rows: computed once, equal on all ranks, stored.

canvas.yaml in the run folder is the model's input, for `predict` and `show`. render.yaml is the recipe of its panels,
which `render --config` accepts to render other recordings. dataset.yaml has the classes, unless they are those of HMS
(`datasets.read_dataset`). statistics.json records the inputs of the statistics, so
that a resume recomputes them only if these changed.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.config.load import from_stored, save, save_stored, stored
from hms_dist.config.safe_yaml import read_record
from hms_dist.config.versions import with_bare_names
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_json, sealed, unsealed, write_json
from hms_dist.core.logging import LOG
from hms_dist.datasets import HMS, write_dataset
from hms_dist.train.data.run_data import RunData, ShardSet
from hms_dist.train.data.statistics import filled, needs_statistics, row_moments
from hms_dist.train.folder.record import CANVAS_NAME, RECIPE_NAME, STATISTICS_NAME
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig


def with_statistics(config: TrainConfig, data: RunData, world: World) -> RunData:
    """Return `data` with canvases that have their statistics. Called by every rank; the main one writes the run
    folder."""
    canvas = config.canvas
    if needs_statistics(canvas):
        depends_on = _dependencies(config, data)
        known = world.broadcast(kept_canvas(config.out / STATISTICS_NAME, depends_on) if world.is_main else None)
        canvas = known or _computed(config, data, world)
        if world.is_main:
            plain = {**depends_on, "canvas": stored(config.canvas)}
            write_json(config.out / STATISTICS_NAME, sealed({"depends_on": plain, "canvas": stored(canvas)}))
    if world.is_main:
        save(canvas, config.out / CANVAS_NAME)
        save_stored(with_bare_names(data.plain.manifest.render_config), config.out / RECIPE_NAME)
        if data.plain.dataset != HMS:
            write_dataset(config.out, data.plain.dataset)
    return replace(data, shards=_composing(data.shards, canvas), plain=_composing(data.plain, canvas))


def read_canvas(run: Path) -> CanvasConfig:
    """Read the canvas of a run's model. Raises UserError if the run has not begun to train."""
    path = run / CANVAS_NAME
    if not path.exists():
        raise UserError(f"{path}: no such file; is this a run folder, and has the run started training?")
    return from_stored(CanvasConfig, read_record(path), str(path))


def read_recipe(run: Path) -> Any:
    """Read the render configuration of a run's shard set, as plain values. Raises UserError if there is none."""
    path = run / RECIPE_NAME
    if not path.exists():
        raise UserError(f"{path}: no such file; is this a run folder, and has the run started training?")
    return read_record(path)


def _dependencies(config: TrainConfig, data: RunData) -> dict[str, Any]:
    """Everything that the statistics depend on: the shard set, the training rows of the fold, the canvas."""
    rows = np.ascontiguousarray(data.train_rows, "<i8")
    return {
        "shards": data.plain.manifest.fingerprint,
        "rows_sha256": hashlib.sha256(rows.tobytes()).hexdigest(),
        "canvas": config.canvas,
    }


def kept_canvas(path: Path, depends_on: dict[str, Any]) -> CanvasConfig | None:
    """Read the stored canvas with these dependencies; None if the run folder holds none."""
    try:
        record = unsealed(read_json(path), path) if path.exists() else {}
        if "canvas" not in record:
            return None
        asked = from_stored(CanvasConfig, record["depends_on"]["canvas"], str(path))
        if {**record["depends_on"], "canvas": asked} != depends_on:
            return None
        return from_stored(CanvasConfig, record["canvas"], str(path))
    except (UserError, OSError, ValueError, TypeError, KeyError) as error:
        LOG.warning("%s is damaged (%s); recomputing the statistics", path, error)
        return None


def _computed(config: TrainConfig, data: RunData, world: World) -> CanvasConfig:
    """Compute the statistics on all ranks together, in row order, so that they are bit-identical."""
    mine = row_moments(
        data.plain, data.train_rows, threads=config.reader_threads, rank=world.rank, num_ranks=world.num_ranks
    )
    rows, moments = world.gather_rows(*mine)
    return filled(config.canvas, moments[np.argsort(rows, kind="stable")])


def _composing(shards: ShardSet, canvas: CanvasConfig) -> ShardSet:
    return replace(shards, canvas=Canvas(canvas, shards.manifest.panels, flips=shards.canvas.flips))
