"""Runs of a grid: recipes x seeds x folds, each with its folder and its words for `train`. Nothing runs here."""

import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

from hms_dist.config.load import load
from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import read_object
from hms_dist.core.keyed import check_seed
from hms_dist.grid.recipe import Recipe
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.record import STATUS_NAME, is_finished
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stages import check_folders, check_networks, check_products, open_stages

PLACES = ("recipe", "seed", "fold")
"""Placeholders in the pattern of run folders."""

Fold = int | Literal["none"]
Folds = tuple[int, ...] | Literal["all", "none"]


@dataclass(frozen=True)
class PlannedRun:
    """One run of a grid."""

    recipe: str
    seed: int
    fold: Fold
    out: Path
    words: tuple[str, ...]
    """Its options for hms-dist train."""

    @property
    def state(self) -> str:
        """State according to its folder: open, running, stopped, interrupted, finished, refused or failed."""
        return read_object(self.out / STATUS_NAME).get("state", "open")

    @property
    def message(self) -> str:
        """Final message in its folder; empty if none."""
        return read_object(self.out / STATUS_NAME).get("message", "")

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return is_finished(self.out)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ValueError for a seed that frameworks would truncate, and for duplicates.

    The 16th place's list had two seeds above 2^32 - 1, and so trained one model twice and lost another.
    """
    for seed in seeds:
        check_seed("seeds", seed)
    twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
    if twice:
        raise ValueError(
            f"seeds: {twice[0]} is listed twice, and the two runs would be the same; give each run its own seed"
        )


def check_pattern(pattern: str) -> None:
    """Raise ValueError if a pattern of run folders has placeholders other than PLACES."""
    try:
        places = [(name, form or "") for _, name, form, _ in string.Formatter().parse(pattern) if name is not None]
    except ValueError as error:
        raise ValueError(f"out: '{pattern}' is not a valid pattern ({error})") from error
    for name, form in places:
        if len(form) > limits.FORM_CHARACTERS:
            raise ValueError(
                f"out: '{pattern}' is not a valid pattern (a form of more than {limits.FORM_CHARACTERS} characters)"
            )
        if name not in PLACES:
            raise ValueError(f"out: unknown place {{{name}}}; one of: {', '.join(f'{{{p}}}' for p in PLACES)}")


def plan_runs(
    recipes: Sequence[Recipe], seeds: Sequence[int], folds: Folds, *, shards: str, out: str
) -> list[PlannedRun]:
    """Plan every run, folds innermost. All checks of options are made here, before any run.

    Raises UserError for options that hms-dist train rejects, folders shared by two runs, and folders that hold another
    run.
    """
    runs: list[PlannedRun] = []
    for recipe in recipes:
        words = [*recipe.words, "--shards", shards]
        config = load(TrainConfig, [*words, "--out", "unknown"], prog="hms-dist train")
        for seed, fold in product(seeds, _every(folds, config.num_folds)):
            folder = _folder(out, recipe=recipe.name, seed=seed, fold=fold)
            _check_run(config, seed, fold, folder)
            place = ("--seed", str(seed), "--fold", str(fold), "--out", str(folder))
            runs.append(PlannedRun(recipe.name, seed, fold, folder, (*words, *place)))
    _check_apart(runs)
    return runs


def _folder(pattern: str, **places: int | str) -> Path:
    try:
        return Path(pattern.format(**places))
    except ValueError as error:
        found = ", ".join(f"{name} {value}" for name, value in places.items())
        raise UserError(f"out: '{pattern}' cannot be filled with {found} ({error}); write the names alone") from error


def check_data(runs: Sequence[PlannedRun]) -> None:
    """Open the data and look up the model of the first open run of each recipe, so that errors show before any run."""
    first = {run.recipe: run for run in reversed(runs) if not run.finished}
    for run in first.values():
        config = load(TrainConfig, run.words, prog="hms-dist train")
        check_networks(config)
        for stage in open_stages(config):
            open_run_data(stage).close()


def check_finished(runs: Sequence[PlannedRun]) -> None:
    """Raise UserError for a finished run whose shards or labels have changed: it would be skipped as finished."""
    for run in runs:
        if run.finished:
            check_products(load(TrainConfig, run.words, prog="hms-dist train"))


def _every(folds: Folds, num_folds: int) -> Sequence[Fold]:
    if folds == "none":
        return ("none",)
    return range(num_folds) if folds == "all" else folds


def _check_run(config: TrainConfig, seed: int, fold: Fold, out: Path) -> None:
    try:
        config = replace(config, seed=seed, fold=fold, out=out)
    except ValueError as error:
        raise UserError(str(error)) from error
    check_folders(config)


def _check_apart(runs: list[PlannedRun]) -> None:
    taken: dict[Path, PlannedRun] = {}
    for run in runs:
        other = taken.setdefault(run.out, run)
        if other is not run:
            names = [f"recipe {r.recipe} seed {r.seed} fold {r.fold}" for r in (other, run)]
            places = ", ".join(f"{{{place}}}" for place in PLACES)
            raise UserError(
                f"out: {names[0]} and {names[1]} would share {run.out}; add a placeholder that distinguishes them "
                f"({places})"
            )
