"""Options of a search."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hms_dist.config.command_line import option_words
from hms_dist.core.keyed import check_seed
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.search.space import Parameter


@dataclass(frozen=True, kw_only=True)
class Search:
    """Search for the training options with the lowest validation KL (or log loss), with Optuna.

    Any number of jobs may run this command on one study at once; after a kill, rerun it to resume. A trial trains one
    run per fold; its value is the mean of their best values. After every epoch it is pruned if it is worse than
    the median of earlier trials. Writes OUT/best.yaml, a configuration for hms-dist train, and OUT/trials.csv.
    """

    RECIPE_FOLDER = "search"

    shards: str
    """Folder of the shard set, or its URL; canvas options need no new rendering."""
    out: Path
    """Folder of the study."""
    configs: tuple[Path, ...]
    """Training recipes, merged in order: names, or paths relative to the working directory."""
    space: dict[str, Parameter]
    """Parameters to search, by name."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of the trials only, by dotted names, such as {epochs: 2}; they are not written to best.yaml."""
    folds: tuple[int, ...] = (0, 1)
    """Validation folds of every trial, counted from 0."""
    num_trials: int = 20
    """Trials per batch over all jobs, including failed and pruned ones."""
    num_batches: int = 1
    """Number of batches; each begins when the previous one is finished, with the ranges narrowed around its best
    trial."""
    narrowing: float = 0.5
    """Fraction of each range's width that the next batch keeps."""
    num_startup: int = 5
    """Random trials at the start of a batch, before the sampler uses results; no trial is pruned before this many can
    be compared with."""
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
        """Words for hms-dist train from which the best trial's configuration is built."""
        return [word for path in self.configs for word in ("--config", str(path))]

    @property
    def trial_words(self) -> list[str]:
        """Words of a trial for hms-dist train."""
        return [*self.words, *option_words(self.options)]
