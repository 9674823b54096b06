"""Optimisers and their parameter groups."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import torch
from torch import nn

from hms_dist.core.errors import one_of
from hms_dist.model.sliding_window import SlidingWindowNet
from hms_dist.model.weights import head_names


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its parameter groups; by default AdamW on all parameters as one group."""

    name: str = "adamw"
    """adamw (Loshchilov and Hutter, 2019), adam (Kingma and Ba, 2015) or sgd."""
    lr: float = 3e-4
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square, each in [0, 1); adamw and adam only."""
    momentum: float = 0.9
    """Momentum of sgd, in [0, 1). 0: none."""
    eps: float = 1e-8
    """Added to the denominator, in the unit of a gradient; adamw and adam only."""
    weight_decay: float = 0.01
    """Weight decay of all parameters, norms and biases included: decoupled and multiplied by the learning rate in
    adamw, an L2 penalty in adam and sgd. 0: none."""
    head_lr_factor: float = 1.0
    """Learning rate of the classifier relative to the backbone's."""
    max_grad_norm: float | None = None
    """Clip the L2 norm of the gradient over all parameters to this. None: no clipping."""

    def __post_init__(self) -> None:
        one_of("optim.name", self.name, list(OPTIMIZERS))
        for option in ("lr", "eps", "head_lr_factor"):
            if not 0 < getattr(self, option) < inf:
                raise ValueError(f"{option}: expected a number above 0, found {getattr(self, option)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas: expected two numbers in [0, 1), found {list(self.betas)}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), found {self.momentum}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay: expected 0 or more, found {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm: expected a number above 0, or null, found {self.max_grad_norm}")


def build_optimizer(config: OptimConfig, model: nn.Module, *, fused: bool = True) -> torch.optim.Optimizer:
    """Create the optimiser over the parameters of `model` that require gradients.

    Fused if all of them are on a GPU, unless `fused` is False: with a gradient scaler a fused optimiser skips steps
    without reporting it.
    """
    groups = parameter_groups(config, model)
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return OPTIMIZERS[config.name](config, groups, fused and on_gpu)


def parameter_groups(config: OptimConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters that require gradients by `lr_scale`, the factor of their learning rate."""
    if isinstance(model, SlidingWindowNet):
        model = model.backbone  # the wrapper adds no weights, and timm identifies the head of the backbone
    head = head_names(model)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault(config.head_lr_factor if name in head else 1.0, []).append(parameter)
    return [
        {"params": parameters, "lr": config.lr * scale, "lr_scale": scale, "weight_decay": config.weight_decay}
        for scale, parameters in groups.items()
    ]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float, momentum: float | None = None) -> None:
    """Set the learning rate to `rate` times each group's scale from the next step on; and `momentum` (beta1), if
    given."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_scale"]
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        elif momentum is not None:
            group["momentum"] = momentum


def _adam(cls: type[torch.optim.Adam]) -> Callable[[OptimConfig, list[dict[str, Any]], bool], torch.optim.Optimizer]:
    return lambda config, groups, fused: cls(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)


def _sgd(config: OptimConfig, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, fused=fused)


OPTIMIZERS: dict[str, Callable[[OptimConfig, list[dict[str, Any]], bool], torch.optim.Optimizer]] = {
    "adamw": _adam(torch.optim.AdamW),
    "adam": _adam(torch.optim.Adam),
    "sgd": _sgd,
}
"""Name -> constructor: (options, parameter groups, fused) to the optimiser."""
