"""Build the network of a run: converted to work by rows, in its precision and memory format, on its device."""

import torch
from torch import Tensor, nn

from hms_dist.datasets import HMS, Dataset
from hms_dist.model import gpus
from hms_dist.model.build import CompileMode, build
from hms_dist.model.by_rows import check_rows, convert
from hms_dist.model.pass_rows import PassRows
from hms_dist.model.sliding_window import num_columns
from hms_dist.train.data.leakage import dataset_of_weights
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig

MIN_COMPILED_STEPS = 2000
"""Fewest steps of a run that `compile_mode: auto` compiles."""


def build_network(config: TrainConfig, world: World, dataset: Dataset = HMS) -> tuple[nn.Module, PassRows]:
    """Build the model of a run on this rank's device, without DDP, and the `PassRows` that its layers read.

    Its state dict has the names of the plain timm model. Raises UserError for a model that cannot be trained by rows.
    """
    size = config.canvas.height, config.canvas.width
    before = dataset_of_weights(config.model.weights)
    names = None if before is None else (before.classes, dataset.classes)
    model = build(config.model, config.seed, dataset.num_classes, size=size, class_names=names)
    rows = PassRows(world.device)
    convert(model, rows)
    if config.precision == "float64":
        model.double()
    model.to(world.device)
    if world.device.type == "cuda":
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def call(model: nn.Module, pictures: Tensor) -> Tensor:
        """Compute a training pass as the run does."""
        inputs = [pictures]
        if config.model.sliding_window is not None:
            inputs.append(pictures.new_ones(1, 1, num_columns(pictures.shape[-1])))
        with world.accelerator.autocast():
            outputs: Tensor = model(*inputs)
        return outputs

    pictures = torch.zeros(1, 1, *size, device=world.device, dtype=next(model.parameters()).dtype)
    check_rows(config.model.name, model, rows, call, pictures)
    return model, rows


def compile_mode(config: TrainConfig, num_steps: int, device: torch.device) -> CompileMode | None:
    """Return torch.compile's mode for a run of `num_steps`; None: not compiled."""
    if config.compile_mode != "auto":
        return config.compile_mode
    return "default" if device.type == "cuda" and gpus.are_fast() and num_steps >= MIN_COMPILED_STEPS else None
