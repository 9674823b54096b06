"""The network as a run trains it: built, with its norms, precision and memory format, on its device."""

import torch
from torch import nn

from hms_dist.core.errors import UserError
from hms_dist.model.build import build, compile_in_place
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig


def build_network(config: TrainConfig, world: World) -> nn.Module:
    """The model of a run on its rank's device, not wrapped. The names of its state are the plain model's.

    Raises UserError for what the model or the machine cannot do.
    """
    check_norms(config, world.num_ranks, on_gpu=world.device.type == "cuda")
    model = build(config.model, config.seed, size=(config.canvas.height, config.canvas.width))
    if config.batch_norm == "sync":
        model = _synchronised(model)
    if config.precision == "float64":
        model.double()
    model.to(world.device)
    if config.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compile_in_place(model, config.compile_mode)
    return model


def check_norms(config: TrainConfig, num_ranks: int, *, on_gpu: bool) -> None:
    """Raises UserError for batch norms that so many ranks cannot have."""
    if config.batch_norm == "sync" and num_ranks > 1 and not on_gpu:
        raise UserError("batch_norm: sync needs GPUs (torch has no SyncBatchNorm for the CPU); set batch_norm: group")


def _synchronised(model: nn.Module) -> nn.Module:
    """`model` with SyncBatchNorm: torch's on its own, timm's where a norm holds its activation."""
    from timm.layers import convert_sync_batchnorm  # takes seconds

    converted: nn.Module = convert_sync_batchnorm(model)
    return converted
