"""The options of a search."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hms_dist.core.keyed import check_seed
from hms_dist.grid.recipe import LaunchConfig, option_words
from hms_dist.search.space import Parameter


@dataclass(frozen=True, kw_only=True)
class Search:
    """Search for the parameters of a training run with the lowest validation KL, by Optuna.

    Any number of jobs may run this command on one study at once; killed and rerun, it goes on where it was. A trial
    trains one run a fold and counts by the mean of their best validation KLs; after every epoch it is stopped if it
    is behind the median of the trials before it. Writes OUT/best.yaml, a configuration for hms-dist train, and
    OUT/trials.csv.
    """

    RECIPE_FOLDER = "search"

    shards: str
    """Folder of the shard set, or its URL; parameters of the canvas need no new rendering."""
    out: Path
    """Folder of the study."""
    configs: tuple[Path, ...]
    """Training recipes, laid over one another: names, or paths from where the command runs."""
    space: dict[str, Parameter]
    """What is searched, by name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the trials alone by their dotted names, such as {epochs: 2}; best.yaml does not have them."""
    folds: tuple[int, ...] = (0, 1)
    """Validation folds of every trial, counted from 0."""
    num_trials: int = 20
    """Trials of a batch, failed and stopped ones among them, over all jobs."""
    num_batches: int = 1
    """Batches; each begins when the one before it is done, with the ranges narrowed about its best trial."""
    narrowing: float = 0.5
    """Share of each range's width that the next batch keeps."""
    num_startup: int = 5
    """Trials of a batch drawn at random, before the sampler learns from them; no trial is stopped before so many are
    there to compare with."""
    seed: int = 0
    """Seed of the draws, 0 to 2^32 - 1."""
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """How each training run is started."""

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)
        if not self.configs or not self.space:
            raise ValueError("space: a search needs training configs and at least one parameter")
        if not self.folds or len(set(self.folds)) < len(self.folds):
            raise ValueError(f"folds: expected one or more different folds, found {list(self.folds)}")
        for name in ("num_trials", "num_batches", "num_startup"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if not 0 < self.narrowing <= 1:
            raise ValueError(f"narrowing: expected a share in (0, 1], found {self.narrowing}")

    @property
    def words(self) -> list[str]:
        """The words that a best trial's configuration is made from, for hms-dist train."""
        return [word for path in self.configs for word in ("--config", str(path))]

    @property
    def trial_words(self) -> list[str]:
        """Those of a trial's."""
        return [*self.words, *option_words(self.options)]
