"""Reactions to a monitored value that stops improving: a lower learning rate, or the end of the run.

The state is stored in every checkpoint and is the same on all ranks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """Reactions to a plateau (the bird-call detector); none by default. Every epoch ends with an evaluation."""

    monitor: str = "val_kl"
    """Value of the evaluations in metrics.jsonl to monitor: val_kl, val_kl_<class>, ...; for independent yes/no
    classes: val_log_loss, val_auroc, ..."""
    mode: Literal["min", "max"] = "min"
    """Whether lower or higher values are better."""
    threshold: float = 0.0
    """Minimum change that counts as an improvement, in the monitor's unit."""
    drop_factor: float | None = None
    """Factor of the learning rate on a plateau, in (0, 1). None: no change."""
    patience: int = 2
    """Consecutive evaluations without improvement that are tolerated; the next one lowers the rate and restarts the
    count."""
    stop_patience: int | None = None
    """End the run after this many consecutive evaluations without improvement. None: never."""

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
        """Whether a plateau has any effect."""
        return self.drop_factor is not None or self.stop_patience is not None


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """State of the monitor after the evaluations so far."""

    best: float | None = None
    """Best value so far; None before the first evaluation."""
    num_patient: int = 0
    """Evaluations without improvement since the last improvement or drop."""
    num_stale: int = 0
    """Evaluations without improvement since the last improvement."""
    factor: float = 1.0
    """Factor of the scheduled learning rate."""
    stopped: bool = False
    """True: the run ends here."""


def observed(config: PlateauConfig, plateau: Plateau, monitors: Mapping[str, float]) -> Plateau:
    """Update the state after an evaluation with `monitors`, like torch's ReduceLROnPlateau with threshold_mode abs.

    A plateau without effect reads none of them.
    """
    if not config.active:
        return plateau
    value = monitors.get(config.monitor)
    if value is None:  # these rows do not define it: a rank metric of classes that are all unknown
        return plateau
    sign = 1 if config.mode == "min" else -1
    if plateau.best is None or sign * value < sign * plateau.best - config.threshold:
        return replace(plateau, best=value, num_patient=0, num_stale=0)
    num_stale, num_patient, factor = plateau.num_stale + 1, plateau.num_patient + 1, plateau.factor
    if config.drop_factor is not None and num_patient > config.patience:
        num_patient, factor = 0, factor * config.drop_factor
    stopped = config.stop_patience is not None and num_stale >= config.stop_patience
    return replace(plateau, num_patient=num_patient, num_stale=num_stale, factor=factor, stopped=stopped)


def check_monitor(config: PlateauConfig, monitors: Iterable[str]) -> None:
    """Raise UserError if the plateau has an effect and its monitor is not among the run's evaluations."""
    names = list(monitors)
    if config.active and config.monitor not in names:
        raise UserError(f"plateau.monitor: unknown '{config.monitor}'; one of: {', '.join(names)}")
