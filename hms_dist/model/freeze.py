"""Freezing of the first layers of a model: weights and batch-norm statistics do not change."""

from dataclasses import dataclass

from torch import nn

from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FreezeConfig:
    """Which layers are frozen."""

    num_layers: int = 0
    """Number of frozen layers, from the input. A layer is a module with weights of its own (a convolution, a norm, a
    linear map), counted in the order in which the model registers them: in timm's models that of the forward pass. 24
    are the two-stage course project's 39 parameter tensors: the stem and the first two stages of EfficientNet-B0."""

    def __post_init__(self) -> None:
        if self.num_layers < 0:
            raise ValueError(f"num_layers: expected 0 or more, found {self.num_layers}")


def freeze(model: nn.Module, config: FreezeConfig) -> None:
    """Freeze the first layers of `model`.

    A frozen layer gets no gradient. It and everything before it (dropout, stochastic depth) run in evaluation mode, so
    batch norms use and keep their statistics. `model.train()` resets the modes: call this afterwards. Raises UserError
    if nothing is left to train.
    """
    if not config.num_layers:
        return
    modules = [module for module in model.modules() if _layer(module) or not any(True for _ in module.children())]
    places = [place for place, module in enumerate(modules) if _layer(module)]
    if config.num_layers >= len(places):
        raise UserError(
            f"freeze.num_layers: {config.num_layers} of the model's {len(places)} layers leave none to train; lower it"
        )
    for module in modules[: places[config.num_layers - 1] + 1]:
        module.training = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)


def _layer(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None
