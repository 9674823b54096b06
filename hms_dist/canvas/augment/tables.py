"""Planned augmentations: their inputs as tables of numbers on the host, and their application on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change, Mix, SingleAugmentation
from hms_dist.canvas.augment.draws import Floats
from hms_dist.canvas.augment.row_facts import mixed_targets


@dataclass(frozen=True, eq=False)
class Planned:
    """A step with its inputs."""

    step: SingleAugmentation
    layout: Any
    table: Floats
    """Inputs for the device [k, columns]: positions of its k rows, of partners for a mix, parameters."""


def apply_tables(
    planned: Sequence[Planned], tables: Sequence[Tensor], content: Tensor, targets: Tensor, *, yes_no: bool
) -> None:
    """Apply steps in order and in place, to `content` [n, ...], float32, and `targets` [n, classes], any float dtype.

    `tables`: those of `planned`, on the device of the content.
    """
    for one, table in zip(planned, tables, strict=True):
        positions = table[:, 0].long()
        changed = content[positions]
        if isinstance(one.step, Change):
            changed = one.step.apply(changed, table[:, 1:], one.layout)
        elif isinstance(one.step, Mix):
            partners, parameters = table[:, 1].long(), table[:, 2:]
            share = parameters[:, :1].to(targets.dtype)
            mixed = mixed_targets(targets[positions], targets[partners], share, yes_no=yes_no)
            changed = one.step.apply(changed, content[partners], parameters)
            targets.index_copy_(0, positions, mixed)
        content.index_copy_(0, positions, changed)


def on_device(tables: Sequence[Floats], device: torch.device) -> list[Tensor]:
    """Copy tables, [k, columns] each, to the device as float64 tensors, in one asynchronous copy."""
    flat = torch.from_numpy(np.concatenate([table.ravel() for table in tables]))
    there = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
    return views(there, tables)


def views(flat: Tensor, tables: Sequence[Floats]) -> list[Tensor]:
    """Return views of `flat`, any dtype [numbers], with the shapes of `tables`."""
    parts = torch.split(flat, [table.size for table in tables])
    return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
