"""Freezing of the first layers of a model: weights and batch-norm statistics do not change."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

from torch import nn

from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Which layers are frozen, and until when; counted as modules or as parameter tensors."""

    num_layers: int = 0
    """Number of frozen layers, from the input. A layer is a module with weights of its own (a convolution, a norm, a
    linear map), counted in the order in which the model registers them: in timm's models that of the forward pass."""
    num_tensors: int = 0
    """Number of frozen parameter tensors, from the input, instead of num_layers: a convolution without bias is one, a
    batch norm two. The two-stage course project's 39 "layers" are these: the stem and the first two stages of
    EfficientNet-B0."""
    until_epoch: int | None = None
    """Epoch, counted from 0, from which they are trained too; None: never."""

    def __post_init__(self) -> None:
        for option in ("num_layers", "num_tensors"):
            if getattr(self, option) < 0:
                raise ValueError(f"{option}: expected 0 or more, found {getattr(self, option)}")
        if self.num_layers and self.num_tensors:
            raise ValueError(f"num_tensors: counts what num_layers ({self.num_layers}) counts; leave one of them out")
        if self.until_epoch is not None and self.until_epoch < 1:
            raise ValueError(f"until_epoch: expected 1 or more, or null, found {self.until_epoch}")


def freeze(model: nn.Module, config: FreezeConfig, epoch: int) -> bool:
    """Freeze or unfreeze the first layers of `model` for epoch `epoch`; True if the trained parameters have changed.

    A frozen layer gets no gradient. It and everything before it (dropout, stochastic depth) run in evaluation mode, so
    batch norms use and keep their statistics. A layer with only some frozen tensors stays in training mode.
    `model.train()` resets the modes: call this afterwards. Raises UserError if nothing is left to train.
    """
    if not config.num_layers and not config.num_tensors:
        return False
    modules = [module for module in model.modules() if _layer(module) or not any(True for _ in module.children())]
    places = [place for place, module in enumerate(modules) if _layer(module)]
    tensors = list(model.parameters())
    if config.num_layers:
        _check_left("num_layers", config.num_layers, places, "layers")
        frozen = modules[: places[config.num_layers - 1] + 1]
        tensors = [parameter for module in frozen for parameter in module.parameters(recurse=False)]
    else:
        _check_left("num_tensors", config.num_tensors, tensors, "parameter tensors")
        tensors = tensors[: config.num_tensors]
        known = {id(parameter) for parameter in tensors}
        frozen = list(takewhile(lambda module: all(id(p) in known for p in module.parameters(recurse=False)), modules))
    trains = config.until_epoch is not None and epoch >= config.until_epoch
    for module in frozen:
        module.training = trains
    changed = any(parameter.requires_grad != trains for parameter in tensors)
    for parameter in tensors:
        parameter.requires_grad_(trains)
    return changed


def _check_left(option: str, number: int, found: Sequence[object], what: str) -> None:
    if number >= len(found):
        raise UserError(f"freeze.{option}: {number} of the model's {len(found)} {what} leave none to train; lower it")


def _layer(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
