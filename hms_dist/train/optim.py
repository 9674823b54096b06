"""Optimiser and learning rate: AdamW, and a schedule that is a pure function of the step."""

import math
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW (Loshchilov and Hutter, 2019) on all trainable parameters, as one group."""

    lr: float = 3e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square, each in [0, 1)."""
    eps: float = 1e-8
    """Added to the denominator."""
    weight_decay: float = 0.01
    """Decoupled weight decay, multiplied by the learning rate. 0: none."""
    max_grad_norm: float | None = None
    """Scale the gradient down to this L2 norm over all parameters where it is larger. None: never."""

    def __post_init__(self) -> None:
        for option in ("lr", "eps"):
            if not getattr(self, option) > 0:
                raise ValueError(f"{option}: expected a number above 0, found {getattr(self, option)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), found {list(self.betas)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: expected 0 or more, found {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm: expected a number above 0, or null, found {self.max_grad_norm}")


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, then a cosine to the end. Factors are of the peak learning rate."""

    warmup_share: float = 0.1
    """Share of all optimiser steps that warm up, in [0, 1). 0: no warm-up."""
    start_factor: float = 0.1
    """Factor at the first step of the warm-up."""
    final_factor: float = 0.01
    """Factor that the cosine reaches at the end."""

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share: expected a share in [0, 1), found {self.warmup_share}")
        for option in ("start_factor", "final_factor"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{option}: expected a factor in [0, 1], found {getattr(self, option)}")


def learning_rate_factor(schedule: ScheduleConfig, step: int, num_steps: int) -> float:
    """Factor on the learning rate for optimiser step `step` (0 is the first) of a run of `num_steps`.

    It takes no history, so a resume and any number of ranks give the same curve. `step == num_steps` is the
    end of the cosine, which no step uses. Raises ValueError for a step outside the run.
    """
    if num_steps < 1 or not 0 <= step <= num_steps:
        raise ValueError(f"step {step} of a run of {num_steps} steps")
    num_warmup = schedule.warmup_share * num_steps
    if step < num_warmup:
        return schedule.start_factor + (1 - schedule.start_factor) * step / num_warmup
    done = (step - num_warmup) / (num_steps - num_warmup)
    return schedule.final_factor + (1 - schedule.final_factor) * (1 + math.cos(math.pi * done)) / 2


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.AdamW:
    """AdamW over the parameters of `model` that require gradients; one fused kernel if all are on a GPU."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=all(parameter.is_cuda for parameter in parameters),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from the next step on, in every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
