"""A list of augmentations, applied to the groups of a run in their order."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Augmentation, Change, Mix, Part, SingleAugmentation
from hms_dist.canvas.augment.draws import Floats, RowDraws, draws_of, whole_below
from hms_dist.canvas.augment.layout import layout_of
from hms_dist.canvas.compose import Canvas

_PARTNER = 1
"""Part of a mix's draws that chooses the other row."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training rows; evaluation has none. Flips are an option of the run itself."""

    RECIPE_FOLDER = "augment"

    reverse_probability: float = 0.0
    """Share of rows whose time runs backwards in every panel."""
    steps: tuple[Augmentation, ...] = ()
    """Applied to the finished picture in this order; each by class_path and init_args."""

    def __post_init__(self) -> None:
        if not 0 <= self.reverse_probability <= 1:
            raise ValueError(f"reverse_probability: expected 0 to 1, found {self.reverse_probability}")

    def check(self, height: int, width: int) -> None:
        """Raises ValueError if a step does not fit a canvas of `height` x `width` pixels."""
        for step in self.steps:
            fault = step.fault(height, width)
            if fault is not None:
                raise ValueError(f"augment: {step.name} does not fit the canvas of {height} x {width} pixels: {fault}")

    @property
    def mixes(self) -> bool:
        """Whether any step needs other rows of the group."""
        return any(step.mixes for step in self.steps)

    @property
    def moves_time(self) -> bool:
        """Whether what is shown may lie elsewhere along time afterwards."""
        return self.reverse_probability > 0 or any(step.moves_time for step in self.steps)


class Augmenter:
    """Applies the steps of a configuration to pictures of `canvas`."""

    def __init__(self, config: AugmentConfig, canvas: Canvas) -> None:
        self._steps = config.steps
        self._layout = layout_of(canvas)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, targets: Tensor, rows: NDArray[np.int64], *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures and labels of one group as training sees them at `epoch`; what is given stays as it is.

        `images` [m, 1, height, width], `targets` [m, classes], `rows` [m] of the shard set. All draws are made on
        the host, keyed by row, and reach the device in one copy. A row's result depends on nothing else but, with
        mixes, on the other rows of its group and their order.
        """
        planned = [(step, self._table(step, draws, chosen)) for step, chosen, draws in self._plan(rows, seed, epoch)]
        if not planned:
            return images, targets
        images, targets = images.clone(), targets.clone()
        for (step, _), table in zip(planned, _moved([table for _, table in planned], images.device), strict=True):
            positions = table[:, 0].long()
            changed = images[positions]
            if isinstance(step, Change):
                changed = step.apply(changed, table[:, 1:], self._layout)
            elif isinstance(step, Mix):
                partners, parameters = table[:, 1].long(), table[:, 2:]
                share = parameters[:, :1].to(targets.dtype)
                mixed = targets[positions] * share + targets[partners] * (1 - share)
                changed = step.apply(changed, images[partners], parameters)
                targets.index_copy_(0, positions, mixed)
            images.index_copy_(0, positions, changed)
        return images, targets

    def _plan(self, rows: NDArray[np.int64], seed: int, epoch: int) -> list[Part]:
        """Steps with the rows [m] that they change and the draws of all rows, without those that change none."""
        draws = draws_of(rows, seed=seed, epoch=epoch)
        every = [part for place, step in enumerate(self._steps) for part in step.parts(draws.within(place))]
        return [
            (step, chosen, drawn)
            for step, chosen, drawn in every
            if chosen.any() and not (isinstance(step, Mix) and len(rows) == 1)
        ]

    def _table(self, step: SingleAugmentation, draws: RowDraws, chosen: NDArray[np.bool_]) -> Floats:
        """What a step needs on the device [n, columns]: places in the group, partners' places for a mix, parameters."""
        drawn = draws.only(chosen)
        columns = [np.flatnonzero(chosen)[:, None].astype(np.float64)]
        if isinstance(step, Mix):
            further = 1 + whole_below(drawn.within(_PARTNER).uniform(1), len(draws.rows) - 1)
            columns.append((columns[0] + further) % len(draws.rows))
        return np.concatenate([*columns, step.draw(drawn, self._layout)], axis=1)


def _moved(tables: list[Floats], device: torch.device) -> list[Tensor]:
    """Tables as tensors on the device, by one copy that nobody waits for."""
    flat = torch.from_numpy(np.concatenate([table.ravel() for table in tables]))
    there = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
    parts = torch.split(there, [table.size for table in tables])
    return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
