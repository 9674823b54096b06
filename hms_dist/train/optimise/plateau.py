"""What a monitor that stops improving decides: a lower learning rate, or the end of the run.

The decisions are a small state beside the schedule: it is in every checkpoint and the same on all ranks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """Reactions to a monitor that does not improve (seed 004); by default none. An evaluation ends each epoch."""

    monitor: str = "val_kl"
    """Number of the evaluations in metrics.jsonl to watch: val_kl, val_kl_seizure, ..."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of it is better."""
    threshold: float = 0.0
    """An improvement has to be larger than this, in the monitor's unit."""
    drop_factor: float | None = None
    """Multiply the learning rate by this on a plateau, in (0, 1). None: never."""
    patience: int = 2
    """Evaluations in a row without improvement that are borne; the next one drops the rate and counts anew."""
    stop_patience: int | None = None
    """End the run after this many evaluations in a row without improvement. None: never."""

    def __post_init__(self) -> None:
        if not self.threshold >= 0:
            raise ValueError(f"threshold: expected 0 or more, found {self.threshold}")
        if self.drop_factor is not None and not 0 < self.drop_factor < 1:
            raise ValueError(f"drop_factor: expected a factor in (0, 1), or null, found {self.drop_factor}")
        if self.patience < 0:
            raise ValueError(f"patience: expected 0 or more, found {self.patience}")
        if self.stop_patience is not None and self.stop_patience < 1:
            raise ValueError(f"stop_patience: expected at least 1, or null, found {self.stop_patience}")

    @property
    def active(self) -> bool:
        """True if a plateau has any consequence."""
        return self.drop_factor is not None or self.stop_patience is not None


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """Where the monitor stands after the evaluations so far."""

    best: float | None = None
    """Best value yet; None before the first evaluation."""
    num_patient: int = 0
    """Evaluations without improvement since the last improvement or drop."""
    num_stale: int = 0
    """Evaluations without improvement since the last improvement."""
    factor: float = 1.0
    """Factor on the scheduled learning rate."""
    stopped: bool = False
    """True: the run ends here."""


def observed(config: PlateauConfig, plateau: Plateau, monitors: Mapping[str, float]) -> Plateau:
    """The state after an evaluation that gave `monitors`; drops as torch's ReduceLROnPlateau, threshold_mode abs.

    A plateau without consequences looks at none of them.
    """
    if not config.active:
        return plateau
    value = monitors[config.monitor]
    sign = 1 if config.mode == "min" else -1
    if plateau.best is None or sign * value < sign * plateau.best - config.threshold:
        return replace(plateau, best=value, num_patient=0, num_stale=0)
    num_stale, num_patient, factor = plateau.num_stale + 1, plateau.num_patient + 1, plateau.factor
    if config.drop_factor is not None and num_patient > config.patience:
        num_patient, factor = 0, factor * config.drop_factor
    stopped = config.stop_patience is not None and num_stale >= config.stop_patience
    return replace(plateau, num_patient=num_patient, num_stale=num_stale, factor=factor, stopped=stopped)


def check_monitor(config: PlateauConfig, monitors: Iterable[str]) -> None:
    """Raises UserError if a plateau matters and its monitor is not among those that the run evaluates."""
    names = list(monitors)
    if config.active and config.monitor not in names:
        raise UserError(f"plateau.monitor: unknown '{config.monitor}'; one of: {', '.join(names)}")
