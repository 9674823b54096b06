"""The options of one stage of a run."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hms_dist.stream.rows.filters import FilterConfig
from hms_dist.stream.rows.overlay import OverlayConfig
from hms_dist.stream.rows.selections import SelectionConfig
from hms_dist.train.optimise.optim import OptimConfig
from hms_dist.train.optimise.schedules import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """One stage: options that differ from the run's. Each stage has its own schedule from its first step to its
    last."""

    name: str
    """Name of its folder, used by later stages to refer to it."""
    init: str = "pretrained"
    """Initial weights. pretrained: those of the run's `model.weights` (the 16th place restarts from them); best:NAME or
    final:NAME: those of an earlier stage of this run, averaged if it kept an average (the two-stage course project
    continues)."""
    epochs: int | None = None
    """Passes over its rows. None: the run's."""
    selection: SelectionConfig | None = None
    """Rows of an epoch. None: the run's."""
    filters: FilterConfig | None = None
    """Filters of the rows. None: the run's."""
    overlay: OverlayConfig | None = None
    """Targets from a table. None: the run's."""
    schedule: ScheduleConfig | None = None
    """Schedule of the learning rate over the stage. None: the run's."""
    optim: OptimConfig | None = None
    """The optimiser. None: the run's."""

    REPLACED: ClassVar[tuple[str, ...]] = ("epochs", "selection", "filters", "overlay", "schedule", "optim")
    """Options that replace the run's where they are given."""

    @property
    def options(self) -> dict[str, Any]:
        """Options that replace the run's in this stage."""
        return {name: value for name in self.REPLACED if (value := getattr(self, name)) is not None}

    def __post_init__(self) -> None:
        if not self.name.replace("-", "_").isidentifier():
            raise ValueError(f"stages.name: '{self.name}' cannot name a folder; use letters, digits, - and _")
        kind, _, name = self.init.partition(":")
        if self.init != "pretrained" and (kind not in ("best", "final") or not name):
            raise ValueError(f"stages.init: expected pretrained, best:NAME or final:NAME, found '{self.init}'")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"stages.epochs: expected at least 1 or null, found {self.epochs}")


def check_stages(stages: tuple[StageConfig, ...], *, has_fold: bool) -> None:
    """Raise ValueError for duplicate names, and for weights of a stage that cannot have them."""
    earlier: list[str] = []
    for stage in stages:
        if stage.name in earlier:
            raise ValueError(f"stages.name: '{stage.name}' appears twice; give each stage a name of its own")
        kind, _, name = stage.init.partition(":")
        if name and name not in earlier:
            found = ", ".join(earlier) or "none"
            raise ValueError(
                f"stages.init: '{stage.name}' starts from '{name}', which is not an earlier stage ({found})"
            )
        if kind == "best" and not has_fold:
            raise ValueError(f"stages.init: '{stage.name}' starts from best weights, fold is none; use final:{name}")
        earlier.append(stage.name)
