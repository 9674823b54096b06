"""The network as a run trains it: built, by rows, in its precision and memory format, on its device."""

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
"""Steps of a run from which on `compile_mode: auto` compiles."""


def build_network(config: TrainConfig, world: World, dataset: Dataset = HMS) -> tuple[nn.Module, PassRows]:
    """The model of a run on its rank's device, not wrapped, and the rows that its layers read.

    The names of its state are the plain model's. Raises UserError for what the model or the machine cannot do.
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
        """A training pass as the run's own."""
        inputs = [pictures]
        if config.model.sliding_window is not None:
            inputs.append(pictures.new_ones(1, 1, num_columns(pictures.shape[-1])))
        with world.accelerator.autocast():
            answers: Tensor = model(*inputs)
        return answers

    pictures = torch.zeros(1, 1, *size, device=world.device, dtype=next(model.parameters()).dtype)
    check_rows(config.model.name, model, rows, call, pictures)
    return model, rows


def compile_mode(config: TrainConfig, num_steps: int, device: torch.device) -> CompileMode | None:
    """How a run of so many steps is compiled."""
    if config.compile_mode != "auto":
        return config.compile_mode
    return "default" if device.type == "cuda" and gpus.are_recent() and num_steps >= MIN_COMPILED_STEPS else None
