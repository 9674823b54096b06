"""Test-time augmentation: the mean of a model's predictions for a picture and its mirror images.

The 16th place averaged the probabilities of a recording and of its mirror image with left and right exchanged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.options import CanvasConfig
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig
from hms_dist.shards.index import Rows
from hms_dist.shards.schema import PanelSpec
from hms_dist.stream.read.loader import Request, load
from hms_dist.train.data.run_data import ShardSet
from hms_dist.train.learn.evaluate import predict_in_memory
from hms_dist.train.task import Task

Mirror = Literal["flip", "reverse"]
"""flip: left and right exchanged. reverse: time runs backwards."""


def check_mirrors(model: ModelConfig, mirrors: Sequence[Mirror]) -> None:
    """Raise UserError for a mirror image that the model does not support."""
    if "reverse" in mirrors and model.sliding_window is not None:
        raise UserError(
            "tta: reverse moves the annotated window of a sliding-window model, whose position is fixed; use flip alone"
        )


def mirrored_canvas(config: CanvasConfig, specs: Mapping[str, PanelSpec], mirrors: Sequence[Mirror]) -> Canvas:
    """Create the canvas for the panels `specs` that can draw all mirror images. Raises UserError if it cannot be
    flipped."""
    plain = Canvas(config, specs, flips=False)
    if "flip" not in mirrors:
        return plain
    try:
        return Canvas(config, specs)
    except UserError as error:
        raise UserError(f"tta: no flip of what this run was trained on ({error}); leave flip out") from error


@torch.no_grad()
def mean_outputs(
    model: nn.Module,
    shards: ShardSet,
    groups: Sequence[Rows],
    device: torch.device,
    *,
    task: Task,
    mirrors: Sequence[Mirror],
    threads: int,
) -> Iterator[NDArray[np.float64]]:
    """For each group of rows [m] yield the mean outputs [m, num_outputs] over all mirror images, float64, in order.

    Every combination of `mirrors` has the same weight: with flip and reverse a row is predicted four times. `model` is
    in evaluation mode.
    """
    flips = (False, True) if "flip" in mirrors else (False,)
    requests = (Request(group, np.full(len(group), True) if flip else None) for group in groups for flip in flips)
    batches = load(shards.reader, requests, threads=threads, pin=device.type == "cuda")
    before: Tensor | None = None
    for group in groups:
        outputs = mirrored_outputs(model, shards.canvas, lambda _: next(batches).to(device), task, mirrors, group)
        if before is not None:  # read when the next group is on its way, so that a GPU never waits for the host
            yield before.cpu().double().mean(0).numpy()
        before = outputs
    if before is not None:
        yield before.cpu().double().mean(0).numpy()


@torch.no_grad()
def mirrored_outputs(
    model: nn.Module,
    canvas: Canvas,
    panels_of: Callable[[bool], Mapping[str, Tensor]],
    task: Task,
    mirrors: Sequence[Mirror],
    rows: Rows | None = None,
) -> Tensor:
    """Predict rows and their mirror images: outputs, float32 or float64 [mirror images, m,
    num_outputs], the rows themselves first.

    `panels_of(flip)`: stored panels of the rows, of all flipped rows if `flip`, on the model's device; called once for
    each value of `flip`. `rows`: their numbers in the shard set of `task`; None: rows of no set.
    """
    outputs = []
    for flip in (False, True) if "flip" in mirrors else (False,):
        panels = panels_of(flip)
        first = next(iter(panels.values()))
        everywhere = torch.ones(len(first), dtype=torch.bool, device=first.device)
        for reverse in (False, True) if "reverse" in mirrors else (False,):
            images = canvas(panels, everywhere if flip else None, everywhere if reverse else None)
            outputs.append(predict_in_memory(task, model, images.to(next(model.parameters()).dtype), rows))
    return torch.stack(outputs)
