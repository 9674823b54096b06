"""A list of augmentations, applied to the rows of a pass in their order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Augmentation, Change, Mix, Part, SingleAugmentation
from hms_dist.canvas.augment.draws import Floats, RowDraws, draws_of
from hms_dist.canvas.augment.groups import GroupedRows, Ints, closure
from hms_dist.canvas.augment.layout import layout_of
from hms_dist.canvas.compose import Canvas

_PARTNER = 1
"""Part of a mix's draws that chooses the other row."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to training rows; evaluation has none. Flips are an option of the run itself."""

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
        self, images: Tensor, targets: Tensor, rows: GroupedRows, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures and labels of the rows of a pass as training sees them at `epoch`; what is given stays as it is.

        `images` [n, 1, height, width], `targets` [n, classes]. All draws are made on the host, keyed by row, and reach
        the device in one copy. The result of a rank's own row depends on nothing else but, with mixes, on the other
        rows of its group and their order; those that it depends on (`partner_places`) have to be in the batch.
        """
        planned = [
            (step, self._table(step, draws, chosen, rows)) for step, chosen, draws in self._plan(rows, seed, epoch)
        ]
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

    def _plan(self, rows: GroupedRows, seed: int, epoch: int) -> list[Part]:
        """Steps with the rows [n] that they change and the draws of all rows, without those that change none."""
        found = []
        for step, chosen, draws in _parts(self._steps, rows.rows, seed, epoch):
            applied = chosen
            if isinstance(step, Mix):  # a row whose partner is not in the batch is no row that is needed
                applied = chosen & (rows.positions(_partners(rows, draws)) >= 0) & (rows.group_size > 1)
            if applied.any():
                found.append((step, applied, draws))
        return found

    def _table(self, step: SingleAugmentation, draws: RowDraws, chosen: NDArray[np.bool_], rows: GroupedRows) -> Floats:
        """What a step needs on the device [k, columns]: positions, those of partners for a mix, parameters."""
        columns = [np.flatnonzero(chosen)]
        if isinstance(step, Mix):
            columns.append(rows.positions(_partners(rows, draws)[chosen]))
        numbers = np.stack(columns, axis=1).astype(np.float64)
        return np.concatenate([numbers, step.draw(draws.only(chosen), self._layout)], axis=1)


def partner_places(steps: Sequence[Augmentation], groups: GroupedRows, own: Ints, *, seed: int, epoch: int) -> Ints:
    """Places of the rows that those at places `own` are mixed with, directly or by way of others, rising.

    `groups`: all rows of the groups of `own`, their places rising.
    """
    size = int(groups.places.max()) + 1
    mixes = []
    for step, chosen, draws in _parts(steps, groups.rows, seed, epoch):
        if isinstance(step, Mix) and groups.group_size > 1:
            is_mixed, partner = np.zeros(size, bool), np.zeros(size, np.int64)
            is_mixed[groups.places], partner[groups.places] = chosen, _partners(groups, draws)
            mixes.append((is_mixed, partner))
    return closure(own, mixes)


def _parts(steps: Sequence[Augmentation], rows: Ints, seed: int, epoch: int) -> list[Part]:
    draws = draws_of(rows, seed=seed, epoch=epoch)
    return [part for place, step in enumerate(steps) for part in step.parts(draws.within(place))]


def _partners(rows: GroupedRows, draws: RowDraws) -> Ints:
    """Place of the row that each row is mixed with."""
    return rows.others(draws.within(_PARTNER).uniform(1)[:, 0])


def _moved(tables: list[Floats], device: torch.device) -> list[Tensor]:
    """Tables as tensors on the device, by one copy that nobody waits for."""
    flat = torch.from_numpy(np.concatenate([table.ravel() for table in tables]))
    there = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
    parts = torch.split(there, [table.size for table in tables])
    return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
