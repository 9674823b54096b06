"""Check that a model accepts groups of pictures of a size: one forward and backward pass on torch's meta device.

The meta device computes only shapes, so the pass takes well under a second for any model and canvas.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from hms_dist.core.errors import UserError, first_line
from hms_dist.model.arguments import CANVAS
from hms_dist.model.build import ModelConfig, build, outline
from hms_dist.model.group_norms import batch_norms
from hms_dist.model.sliding_window import num_columns

Size = tuple[int, int]
"""Height and width of a picture."""
NUM_CLASSES = 6
"""Classes of the model that is tried; their number does not affect which pictures it accepts."""


def check_fit(config: ModelConfig, num_rows: int, size: Size, num_ranks: int = 1) -> None:
    """Raise UserError unless the model trains on groups of `num_rows` pictures of `size` on this many ranks."""
    model = outline(config, size)
    batch_norms(model)
    error = _refusal(model, config, num_rows, size)
    if error is None:
        _check_gradients(model, config, num_ranks)
        return
    found = f"{num_rows} picture{'s' * (num_rows > 1)} of {size[0]} x {size[1]} ({_reason(error)})"
    if num_rows == 1 and _refusal(outline(config, size), config, 2, size) is None:
        raise UserError(
            f"group_size: {config.name} cannot train on groups of {found}; set group_size to 2 or more, or choose a "
            "model without batch norm"
        ) from error
    raise UserError(
        f"model.name: {config.name} cannot take {found}; {_advice(config, num_rows, size, _reason(error))}"
    ) from error


def _advice(config: ModelConfig, num_rows: int, size: Size, reason: str) -> str:
    other = "choose another canvas size or another model (docs/models.md)"
    if config.sliding_window is not None or "img_size" in config.kwargs:
        return other
    following = replace(config, kwargs={**config.kwargs, "img_size": CANVAS})
    try:
        error = _refusal(outline(following, size), following, num_rows, size)
    except Exception:  # the model has no such argument
        return other
    if error is None:
        return f"set model.kwargs.img_size: {CANVAS}"
    return (
        other
        if _reason(error) == reason
        else f"with model.kwargs.img_size: {CANVAS} neither ({_reason(error)}); {other}"
    )


def _refusal(model: nn.Module, config: ModelConfig, num_rows: int, size: Size) -> Exception | None:
    """Return the error of a training pass on the meta device, None if it succeeds.

    A model that computes with its values on the way is built in full, and runs on the CPU.
    """
    try:
        _train(model, config, num_rows, size, "meta")
    except Exception as error:  # each model raises its own exceptions
        if not (isinstance(error, NotImplementedError) or "meta" in str(error).lower()):
            return error
    else:
        return None
    try:
        _train(build(replace(config, weights="none"), seed=0, size=size), config, num_rows, size, "cpu")
    except Exception as error:
        return error
    return None


def _train(model: nn.Module, config: ModelConfig, num_rows: int, size: Size, device: str) -> None:
    """Run one forward and backward pass. Raises what the model raises, and ValueError for output of another shape."""
    with torch.device(device), torch.random.fork_rng(devices=[]):
        inputs = [torch.zeros(num_rows, 1, *size)]
        if config.sliding_window is not None:
            inputs.append(torch.ones(1, 1, num_columns(size[1])))
        outputs = model.train()(*inputs)
        expected = (num_rows, *[1] * (config.sliding_window is not None), NUM_CLASSES)
        if not isinstance(outputs, Tensor) or outputs.shape != expected:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ValueError(f"expected outputs of shape {expected}, found {found}")
        outputs.sum().backward()  # type: ignore[no-untyped-call]


def _check_gradients(model: nn.Module, config: ModelConfig, num_ranks: int) -> None:
    """Raise UserError for parameters without gradient, as DDP waits for the gradients of all."""
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    unused = [name for name, parameter in trained if parameter.grad is None]
    if num_ranks > 1 and 0 < len(unused) < len(trained):  # all have one if the pass ran on the CPU
        raise UserError(
            f"model.name: {config.name} has {len(unused)} parameters that no gradient reaches ({unused[0]}), which "
            "ranks cannot share; train it on one rank, or choose another model"
        )


def _reason(error: Exception) -> str:
    kind, text = type(error).__name__, first_line(error)
    return kind if text == kind else f"{kind}: {text}"
