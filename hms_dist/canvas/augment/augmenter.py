"""Apply a list of augmentations, in order, to the rows of a pass."""

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
"""Key of the draws that choose the partner in a mix."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Augmentations of training rows; evaluation uses none. Flips are an option of the run."""

    RECIPE_FOLDER = "augment"

    reverse_probability: float = 0.0
    """Share of rows that are reversed in time, in every panel."""
    steps: tuple[Augmentation, ...] = ()
    """Augmentations, applied to the composed image in this order; each by class_path and init_args."""

    def __post_init__(self) -> None:
        if not 0 <= self.reverse_probability <= 1:
            raise ValueError(f"reverse_probability: expected 0 to 1, found {self.reverse_probability}")

    def check(self, height: int, width: int) -> None:
        """Raise ValueError if a step does not fit a canvas of `height` x `width` pixels."""
        for step in self.steps:
            fault = step.fault(height, width)
            if fault is not None:
                raise ValueError(f"augment: {step.name} does not fit the canvas of {height} x {width} pixels: {fault}")

    @property
    def mixes(self) -> bool:
        """Whether any step mixes rows with other rows of their group."""
        return any(step.mixes for step in self.steps)

    @property
    def moves_time(self) -> bool:
        """Whether any option moves content along the time axis."""
        return self.reverse_probability > 0 or any(step.moves_time for step in self.steps)


class Augmenter:
    """Applies the steps of a configuration to images of `canvas`."""

    def __init__(self, config: AugmentConfig, canvas: Canvas) -> None:
        self._steps = config.steps
        self._layout = layout_of(canvas)

    @torch.no_grad()
    def __call__(
        self, images: Tensor, targets: Tensor, rows: GroupedRows, *, seed: int, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """Augment images [n, 1, height, width] and targets [n, classes] of the rows of a pass; the inputs are not
        changed.

        Draws are computed on the host, keyed by row, and copied to the device at once. The result of a rank's own row
        depends on that row alone or, with mixes, on its group; the batch must contain the rows that it is mixed with
        (`partner_places`).
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
        """Draw the rows that each step changes; steps that change no row are left out."""
        found = []
        for step, chosen, draws in _parts(self._steps, rows.rows, seed, epoch):
            applied = chosen
            if isinstance(step, Mix):  # rows whose partner is not in the batch are not needed
                applied = chosen & (rows.positions(_partners(rows, draws)) >= 0) & (rows.group_size > 1)
            if applied.any():
                found.append((step, applied, draws))
        return found

    def _table(self, step: SingleAugmentation, draws: RowDraws, chosen: NDArray[np.bool_], rows: GroupedRows) -> Floats:
        """Inputs of a step for the device [k, columns]: positions of its k rows, of partners for a mix, parameters."""
        columns = [np.flatnonzero(chosen)]
        if isinstance(step, Mix):
            columns.append(rows.positions(_partners(rows, draws)[chosen]))
        numbers = np.stack(columns, axis=1).astype(np.float64)
        return np.concatenate([numbers, step.draw(draws.only(chosen), self._layout)], axis=1)


def partner_places(steps: Sequence[Augmentation], groups: GroupedRows, own: Ints, *, seed: int, epoch: int) -> Ints:
    """Return the places [n] of rows with which the rows at places `own` [m] are mixed, directly or indirectly, in
    ascending order.

    `groups`: all rows of the groups of `own`, with their places in ascending order.
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
    """Place of each row's partner in a mix."""
    return rows.others(draws.within(_PARTNER).uniform(1)[:, 0])


def _moved(tables: list[Floats], device: torch.device) -> list[Tensor]:
    """Copy tables to the device, in one asynchronous copy."""
    flat = torch.from_numpy(np.concatenate([table.ravel() for table in tables]))
    there = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
    parts = torch.split(there, [table.size for table in tables])
    return [part.view(table.shape) for part, table in zip(parts, tables, strict=True)]
