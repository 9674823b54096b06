"""`hms-dist grid`: train recipes x seeds x folds sequentially, or one of these runs as an array task."""

import json
from dataclasses import asdict, dataclass, field

from hms_dist.core.errors import JobError, UserError
from hms_dist.grid.launch import run_all
from hms_dist.grid.recipe import LaunchConfig, Recipe
from hms_dist.grid.run_plan import Folds, PlannedRun, check_finished, check_pattern, check_seeds, plan_runs
from hms_dist.train.ranks.placement import ranges


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Run every recipe with every seed on every fold; finished runs are skipped, stopped ones resumed.

    Rerun the same command after a kill or a failure. A failed run does not stop the others.
    """

    RECIPE_FOLDER = "grid"

    shards: str
    """Folder of the shard set, or its URL."""
    recipes: tuple[Recipe, ...]
    """Recipes to run."""
    out: str = "runs/{recipe}/seed-{seed}/fold-{fold}"
    """Pattern of run folders with {recipe}, {seed} and {fold}, where they vary."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of every recipe, each 0 to 2^32 - 1, without duplicates."""
    folds: Folds = "all"
    """Validation folds, counted from 0; all: those of each recipe's num_folds; none: train on all rows."""
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """How each run is started."""
    list: bool = False
    """Print the runs, numbered from 0, with their states and the open ones as an array specification; run nothing."""
    json: bool = False
    """With list: print them as JSON."""
    number: int | None = None
    """Number of the only run to train, from 0, as an array task does. None: all."""

    def __post_init__(self) -> None:
        check_seeds(self.seeds)
        check_pattern(self.out)
        if not self.recipes or not self.seeds or not self.folds:
            raise ValueError("recipes: a grid needs at least one recipe, one seed and one fold")
        names = [recipe.name for recipe in self.recipes]
        if len(set(names)) < len(names):
            raise ValueError(f"recipes: two have one name ({', '.join(names)}); give each its own")
        if self.json and not self.list:
            raise ValueError("json: sets the format of --list; add --list")
        if self.number is not None and self.list:
            raise ValueError("number: list prints all runs; leave one of them out")


def planned(grid: Grid) -> list[PlannedRun]:
    """Return the runs of a grid, in order. Raises UserError as `plan_runs`."""
    return plan_runs(grid.recipes, grid.seeds, grid.folds, shards=grid.shards, out=grid.out)


def check(command: Grid) -> None:
    """Raise UserError for recipes that training would reject, and folders that hold runs of other options or data."""
    check_finished(planned(command))


def run(command: Grid) -> None:
    """Run the command `grid`. Raises UserError for errors found before any run, JobError naming failed runs."""
    runs = planned(command)
    if command.list:
        print(_as_json(runs) if command.json else f"{_as_table(runs)}\n{_as_array(runs)}")
        return
    if command.number is not None:
        if not 0 <= command.number < len(runs):
            raise UserError(f"--number: expected 0 to {len(runs) - 1}, found {command.number}; --list shows the runs")
        runs = [runs[command.number]]
    failed = run_all(runs, command.launch)
    if failed:
        raise JobError(f"{len(failed)} of {len(runs)} runs did not finish: {'; '.join(failed)}")


def _as_json(runs: list[PlannedRun]) -> str:
    rows = [{"number": number, **asdict(run), "state": run.state} for number, run in enumerate(runs)]
    return json.dumps(rows, indent=1, default=str)


def _as_table(runs: list[PlannedRun]) -> str:
    rows = [("number", "recipe", "seed", "fold", "state", "folder")]
    rows += [(str(n), r.recipe, str(r.seed), str(r.fold), r.state, str(r.out)) for n, r in enumerate(runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _as_array(runs: list[PlannedRun]) -> str:
    numbers = [number for number, run in enumerate(runs) if not run.finished]
    if not numbers:
        return "all finished"
    return (
        f"open, as an array: sbatch --array={ranges(numbers)}, of a script that runs this command with --number "
        '"$SLURM_ARRAY_TASK_ID" instead of --list'
    )
