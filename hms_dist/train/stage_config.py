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
    """One stage: what it does otherwise than the run. Each stage has its schedule from its first step to its last."""

    name: str
    """Name of its folder, and for later stages to refer to."""
    init: str = "pretrained"
    """Weights to start from. pretrained: as the run's `model.weights` says (seed 002 starts anew); best:NAME or
    final:NAME: those that an earlier stage of this run kept, averaged ones if there are (seed 000 goes on)."""
    epochs: int | None = None
    """Passes over its rows. None: the run's."""
    selection: SelectionConfig | None = None
    """Which rows an epoch takes. None: the run's."""
    filters: FilterConfig | None = None
    """Which rows are left out. None: the run's."""
    overlay: OverlayConfig | None = None
    """Targets from a table. None: the run's."""
    schedule: ScheduleConfig | None = None
    """The learning rate over the stage. None: the run's."""
    optim: OptimConfig | None = None
    """The optimiser. None: the run's."""

    REPLACED: ClassVar[tuple[str, ...]] = ("epochs", "selection", "filters", "overlay", "schedule", "optim")
    """Options that stand for the run's where they are given."""

    @property
    def options(self) -> dict[str, Any]:
        """Those options that stand for the run's here."""
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
    """Raises ValueError for names that stand twice, and for weights of a stage that cannot have them."""
    earlier: list[str] = []
    for stage in stages:
        if stage.name in earlier:
            raise ValueError(f"stages.name: '{stage.name}' appears twice; give each stage a name of its own")
        kind, _, name = stage.init.partition(":")
        if name and name not in earlier:
            found = ", ".join(earlier) or "none"
            raise ValueError(f"stages.init: '{stage.name}' starts from '{name}', which is no earlier stage ({found})")
        if kind == "best" and not has_fold:
            raise ValueError(f"stages.init: '{stage.name}' starts from best weights, fold is none; use final:{name}")
        earlier.append(stage.name)
