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
    """Added to the denominator; adamw and adam only."""
    weight_decay: float = 0.01
    """Weight decay: decoupled and multiplied by the learning rate in adamw, an L2 penalty in adam and sgd. 0: none."""
    decay_norm_and_bias: bool = True
    """Apply weight decay to norms, biases and other parameters that the model exempts (TinyViT: its attention
    biases)."""
    layer_decay: float = 1.0
    """Learning rate of each of timm's layer groups relative to the next one, from the head down; in (0, 1]."""
    head_lr_factor: float = 1.0
    """Learning rate of the classifier relative to the backbone's last layer."""
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
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay: expected a factor in (0, 1], found {self.layer_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm: expected a number above 0, or null, found {self.max_grad_norm}")


def build_optimizer(config: OptimConfig, model: nn.Module, *, fused: bool = True) -> torch.optim.Optimizer:
    """Create the optimiser over the parameters of `model` that require gradients.

    Fused if all of them are on a GPU, unless `fused` is False: with a gradient scaler a fused optimiser skips steps by
    itself, without reporting it.
    """
    groups = parameter_groups(config, model)
    on_gpu = all(parameter.is_cuda for group in groups for parameter in group["params"])
    return OPTIMIZERS[config.name](config, groups, fused and on_gpu)


def parameter_groups(config: OptimConfig, model: nn.Module) -> list[dict[str, Any]]:
    """Group the parameters that require gradients by `lr_scale` (factor of the learning rate) and `weight_decay`."""
    if isinstance(model, SlidingWindowNet):
        model = model.backbone  # the wrapper has no weights of its own, and timm knows the layers of the backbone
    scales = _layer_scales(model, config.layer_decay)
    exempt = set() if config.decay_norm_and_bias else _exempt(model)
    head = head_names(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            scale = scales.get(id(parameter), 1.0) * (config.head_lr_factor if name in head else 1.0)
            decay = 0.0 if id(parameter) in exempt else config.weight_decay
            groups.setdefault((scale, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": config.lr * scale, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in groups.items()
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


def _layer_scales(model: nn.Module, layer_decay: float) -> dict[int, float]:
    """Parameter id -> factor of its learning rate, by timm's layer groups; empty without decay."""
    if layer_decay == 1:
        return {}
    from timm.optim import param_groups_layer_decay  # importing timm takes seconds

    groups = param_groups_layer_decay(model, layer_decay=layer_decay)
    return {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}


def _exempt(model: nn.Module) -> set[int]:
    """Ids of the parameters that timm would not decay: one-dimensional ones, and those that the model names."""
    from timm.optim import param_groups_weight_decay  # importing timm takes seconds

    named: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, weight_decay=1.0, no_weight_decay_list=named)
    return {id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]}


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
