"""Learning-rate schedules as pure functions of the optimiser step, equal after a resume and for any number of ranks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hms_dist.core.errors import one_of


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over a run. Factors are relative to the peak learning rate."""

    name: str = "warmup_cosine"
    """warmup_cosine: linear warm-up, then a cosine to the end (the 16th place). one_cycle: a cosine up and a cosine
    down (the wavelet ablation). cosine_annealing: a cosine without warm-up (the course report). constant."""
    warmup_share: float = 0.1
    """Fraction of all optimiser steps for the warm-up, in [0, 1). 0: no warm-up. For warmup_cosine and one_cycle."""
    start_factor: float = 0.1
    """Factor at the first step of the warm-up."""
    final_factor: float = 0.01
    """Factor at the end of the cosine."""
    momentum_range: tuple[float, float] | None = None
    """For one_cycle: lowest and highest momentum (beta1 of Adam and AdamW), lowest at the peak learning rate. None: the
    optimiser's own throughout."""

    def __post_init__(self) -> None:
        one_of("schedule.name", self.name, list(SCHEDULES))
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share: expected a share in [0, 1), found {self.warmup_share}")
        for option in ("start_factor", "final_factor"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{option}: expected a factor in [0, 1], found {getattr(self, option)}")
        if self.momentum_range and self.name != "one_cycle":
            raise ValueError(f"momentum_range: belongs to the schedule one_cycle, name is {self.name}; leave it out")
        if self.momentum_range is not None and not 0 <= self.momentum_range[0] <= self.momentum_range[1] < 1:
            raise ValueError(f"momentum_range: expected low <= high in [0, 1), found {list(self.momentum_range)}")


def learning_rate_factor(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float:
    """Factor of the learning rate for optimiser step `step` (0 is the first).

    `epoch_ends`: for each epoch, the number of steps up to its end; the last one is the length of the run. The factor
    at that number of steps is the end of the schedule, which no step uses. Raises ValueError for a step outside the
    run.
    """
    _check_step(step, epoch_ends)
    return SCHEDULES[schedule.name](schedule, step, epoch_ends)


def cycled_momentum(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float | None:
    """Momentum of optimiser step `step` if the schedule changes it, else None.

    Arguments and errors as `learning_rate_factor`.
    """
    _check_step(step, epoch_ends)
    if schedule.momentum_range is None:
        return None
    low, high = schedule.momentum_range
    return _cycle(schedule, step, epoch_ends[-1], high, low, high)


def _warmup_cosine(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float:
    """A line up to 1, then half a cosine (the 16th place; Loshchilov and Hutter, 2017, after a warm-up)."""
    num_steps = epoch_ends[-1]
    num_warmup = schedule.warmup_share * num_steps
    if step < num_warmup:
        return schedule.start_factor + (1 - schedule.start_factor) * step / num_warmup
    return _cosine(1, schedule.final_factor, (step - num_warmup) / (num_steps - num_warmup))


def _one_cycle(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float:
    """torch's OneCycleLR with div_factor 1 / start_factor and final_div_factor start_factor / final_factor."""
    return _cycle(schedule, step, epoch_ends[-1], schedule.start_factor, 1, schedule.final_factor)


def _cosine_annealing(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float:
    """torch's CosineAnnealingLR over the whole run, with eta_min `final_factor`."""
    return _cosine(1, schedule.final_factor, step / epoch_ends[-1])


def _constant(schedule: ScheduleConfig, step: int, epoch_ends: Sequence[int]) -> float:
    del schedule, step, epoch_ends
    return 1.0


def _cycle(schedule: ScheduleConfig, step: int, num_steps: int, first: float, peak: float, last: float) -> float:
    """`first` to `peak` to `last` along cosines; the peak is one step before the share ends, as in torch."""
    turn, end = schedule.warmup_share * num_steps - 1, num_steps - 1
    if turn > 0 and step <= turn:
        return _cosine(first, peak, step / turn)
    return _cosine(peak, last, min((step - turn) / (end - turn), 1.0))


def _cosine(start: float, end: float, done: float) -> float:
    """From `start` at `done` = 0 to `end` at 1, along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2


def _check_step(step: int, epoch_ends: Sequence[int]) -> None:
    if epoch_ends[-1] < 1 or not 0 <= step <= epoch_ends[-1]:
        raise ValueError(f"step {step} of a run of {epoch_ends[-1]} steps")


SCHEDULES: dict[str, Callable[[ScheduleConfig, int, Sequence[int]], float]] = {
    "warmup_cosine": _warmup_cosine,
    "one_cycle": _one_cycle,
    "cosine_annealing": _cosine_annealing,
    "constant": _constant,
}
"""Name -> schedule: (options, step, ends of the epochs) to the factor."""
