"""`hms-dist ablation`: train canvases x models x folds on one shard set and compare them in a table."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_dist.core.errors import JobError
from hms_dist.core.logging import LOG
from hms_dist.grid.grid import Grid, planned
from hms_dist.grid.launch import run_all
from hms_dist.grid.oof import assembled
from hms_dist.grid.recipe import LaunchConfig, Recipe
from hms_dist.grid.run_plan import PlannedRun
from hms_dist.grid.tables import as_markdown, images_per_s, scores, write_table
from hms_dist.results.metric_kinds import metric_of
from hms_dist.shards.index import Index
from hms_dist.train.folder.run_folder import read_config

TABLE_NAME = "ablation"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Train every model on every canvas, all folds, and write OUT/ablation.md and .csv, best first.

    Each row lists the panels of the canvas, the KL of the held-out predictions of all rows, the wavelet ablation's own
    score (seed001_cv) and the training speed. Rerun the same command after a kill: it is a grid of runs.
    """

    RECIPE_FOLDER = "grid"

    shards: str
    """Folder of the shard set, or its URL; it must hold the panels of all canvases."""
    out: Path
    """Folder of the table; the runs are in OUT/runs/."""
    configs: tuple[Path, ...]
    """Training recipes shared by all runs, as names or paths; merged in order."""
    canvases: tuple[Path, ...]
    """Canvas recipes to compare, as names or paths; their names are used in the table."""
    models: tuple[str, ...]
    """timm models to compare."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options of all runs, by dotted names, such as {epochs: 3}."""
    seed: int = 0
    """Seed of all runs, 0 to 2^32 - 1."""
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """How each run is started."""

    def __post_init__(self) -> None:
        for name in ("canvas", "model.name"):
            if name in self.options:
                raise ValueError(f"options: '{name}' is compared; set it with canvases or models")
        stems = [path.stem for path in self.canvases]
        if not stems or len(set(stems)) < len(stems):
            raise ValueError(f"canvases: expected one or more files of different names, found {stems}")
        if not self.models:
            raise ValueError("models: expected one or more names")
        _ = self.grid

    @property
    def recipes(self) -> list[Recipe]:
        """One recipe for each model and canvas."""
        return [
            Recipe(
                name=f"{model}-{canvas.stem}",
                configs=self.configs,
                options={**self.options, "canvas": str(canvas), "model.name": model},
            )
            for model, canvas in product(self.models, self.canvases)
        ]

    @property
    def grid(self) -> Grid:
        """The grid of its runs."""
        return Grid(
            shards=self.shards,
            recipes=tuple(self.recipes),
            out=f"{self.out}/runs/{{recipe}}/fold-{{fold}}",
            seeds=(self.seed,),
            launch=self.launch,
        )


def check(command: Ablation) -> None:
    """Raise UserError for configurations that hms-dist train would reject, and folders that hold other runs."""
    planned(command.grid)


def run(command: Ablation) -> None:
    """Run the command `ablation`. Raises JobError naming failed runs, after writing the table of the others."""
    runs = planned(command.grid)
    failed = run_all(runs, command.launch)
    done = [r for r in command.recipes if all(one.finished for one in runs if one.recipe == r.name)]
    if done:
        table = compared(done, runs)
        write_table(command.out / TABLE_NAME, table)
        print(as_markdown(table), end="")
        LOG.info("table written: %s", command.out / f"{TABLE_NAME}.md")
    if failed:
        raise JobError(f"{len(failed)} of {len(runs)} runs did not finish: {'; '.join(failed)}")


def compared(recipes: Sequence[Recipe], runs: Sequence[PlannedRun]) -> pd.DataFrame:
    """Table with one row per recipe, best KL first, then the constant predictor for scale.

    Columns: model, canvas, one for each panel that any canvas reads, kl, seed001_cv, images_per_s.
    """
    rows, panels_of = [], {}
    for recipe in recipes:
        folders = [run.out for run in runs if run.recipe == recipe.name]
        held_out = assembled(folders)
        panels_of[recipe.name] = _panels(folders[0])
        model, canvas = recipe.options["model.name"], Path(recipe.options["canvas"]).stem
        speed = float(np.mean([images_per_s(folder) for folder in folders]))
        rows.append((recipe.name, model, canvas, scores(held_out.table, held_out.index), speed))
    columns = list(dict.fromkeys(panel for panels in panels_of.values() for panel in panels))
    table = [
        {"model": model, "canvas": canvas, **{panel: panel in panels_of[name] for panel in columns}, **found,
         "images_per_s": speed}
        for name, model, canvas, found, speed in sorted(rows, key=lambda row: next(iter(row[3].values())))
    ]  # fmt: skip
    constant = {"model": "constant", "canvas": "", **dict.fromkeys(columns, False), **_constant(held_out.index)}
    return pd.DataFrame([*table, {**constant, "images_per_s": float("nan")}])


def _panels(run: Path) -> list[str]:
    return [placement.panel for placement in read_config(run).canvas.placements]


def _constant(index: Index) -> dict[str, float]:
    constant = metric_of(index.dataset).constant(index.targets)
    predictions = pd.DataFrame(constant, columns=list(index.dataset.classes))
    return scores(predictions.assign(key=index.frame["key"]), index)
