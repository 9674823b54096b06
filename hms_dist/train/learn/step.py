"""One optimiser step: this rank's groups forward and backward, then one update that all ranks share."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hms_dist.canvas.augment import Augmenter, draw_reversals
from hms_dist.canvas.compose import Canvas
from hms_dist.model.draws import seed_group
from hms_dist.model.group_norms import GroupNorms
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Batch
from hms_dist.train.optimise.ema import Ema
from hms_dist.train.optimise.optim import set_learning_rate
from hms_dist.train.optimise.schedules import cycled_momentum, learning_rate_factor
from hms_dist.train.ranks.step_result import AsyncScalars, StepResult
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import Task


@dataclass(frozen=True, kw_only=True)
class OptimizerStep:
    """Where a step stands in the run."""

    epoch: int
    number: int
    """Within the epoch, from 0."""
    overall: int
    """Within the run, from 0."""
    epoch_ends: tuple[int, ...]
    """For each epoch of the run, the number of steps up to its end."""
    rows: Rows
    """The B rows of the step as planned: a stand-in counts as much as the row that it stands in for."""
    lr_factor: float = 1.0
    """Factor on the scheduled learning rate, by the plateaus so far."""


@dataclass(kw_only=True)
class Tally:
    """What steps add up besides the weights; part of every checkpoint."""

    num_skipped: int = 0
    """Steps without an update, because fp16 overflowed: schedule and average stand still for them."""


@dataclass(frozen=True, kw_only=True)
class Stepper:
    """What a training step works on."""

    config: TrainConfig
    world: World
    canvas: Canvas
    model: nn.Module
    """As accelerate prepared it: wrapped for several ranks, forward under autocast."""
    optimizer: Any
    norms: GroupNorms
    task: Task
    """What the model learns from a group's pictures and labels."""
    targets: Tensor
    """Label of each row [samples, 6] of the whole shard set, on the host."""
    weights: Tensor
    """Weight of each row [samples], on the host."""
    ema: Ema | None
    """Average of the weights; None: there is none."""
    tally: Tally

    def take(self, batches: Iterator[Batch], step: OptimizerStep, *, stop: bool = False) -> StepResult:
        """Train on one global batch, of which `batches` gives this rank's groups. `stop`: this rank was asked to.

        The loss is the exact weighted mean over the B rows on all ranks: DDP averages gradients over ranks, so each
        rank's sum counts world / the weight of all B rows, which every rank knows from the plan.
        """
        config, world = self.config, self.world
        set_learning_rate(self.optimizer, self.rate(step), self._momentum(step))
        groups = config.batching.groups_of(world.rank, world.num_ranks)
        weight_sum = float(self.weights[torch.from_numpy(step.rows)].sum())
        rows, losses = [], []
        self.norms.begin_step()
        for group in groups:
            batch = next(batches)
            last = group == groups[-1]
            with nullcontext() if last else world.accelerator.no_sync(self.model):
                loss = self._loss(batch, step, group)
                world.accelerator.backward(loss * (world.num_ranks / weight_sum))
            self.norms.after_group()
            rows.append(batch.rows)
            losses.append(loss.detach().double())
        self._update()
        group_losses = torch.stack(losses)
        sums = torch.stack([group_losses.sum() / weight_sum, torch.full_like(losses[0], float(stop))])
        world.sum_(sums)
        return StepResult(step.overall, AsyncScalars(sums), group_losses, np.stack(rows))

    def _loss(self, batch: Batch, step: OptimizerStep, group: int) -> Tensor:
        """Weighted sum of the losses of a group's rows, a scalar."""
        key = (self.config.seed, step.epoch, step.number, group)
        seed_group(*key)
        images, targets = self._inputs(batch, step.epoch)
        losses = self.task.loss_rows(self.model, images, targets, key)
        planned = self.config.batching.rows_of(step.rows, 0, group)
        return (losses * self._of(self.weights, planned).to(losses.dtype)).sum()

    def _update(self) -> None:
        """Move the weights, and what follows them: norms and average stay behind when fp16 skips the step."""
        config, accelerator = self.config, self.world.accelerator
        if config.optim.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if accelerator.optimizer_step_was_skipped:
            self.norms.cancel_step()
            self.tally.num_skipped += 1
            return
        self.norms.end_step(config.batching.num_groups, self.world.sum_)
        if self.ema is not None and config.ema.every == "step":
            self.ema.update()

    def rate(self, step: OptimizerStep) -> float:
        """Learning rate of a step, before the factors of parameter groups."""
        config = self.config
        factor = learning_rate_factor(config.schedule, self._updates_before(step), step.epoch_ends)
        return config.optim.lr * factor * step.lr_factor

    def _momentum(self, step: OptimizerStep) -> float | None:
        return cycled_momentum(self.config.schedule, self._updates_before(step), step.epoch_ends)

    def _updates_before(self, step: OptimizerStep) -> int:
        return step.overall - self.tally.num_skipped

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.config.augment, self.canvas)

    def _of(self, table: Tensor, rows: Rows) -> Tensor:
        """Lines of a table over all rows for some rows, on the device."""
        return table[torch.from_numpy(rows)].to(self.world.device, non_blocking=True)

    def _inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Model input [m, 1, height, width] of a group and its targets, composed and augmented on the device."""
        device, config = self.world.device, self.config
        flips = None if batch.flips is None else torch.from_numpy(batch.flips).to(device, non_blocking=True)
        images = self.canvas(batch.to(device), flips, self._reversals(batch, epoch))
        images, targets = self._augmenter(
            images, self._of(self.targets, batch.rows), batch.rows, seed=config.seed, epoch=epoch
        )
        return images.double() if config.precision == "float64" else images, targets

    def _reversals(self, batch: Batch, epoch: int) -> Tensor | None:
        """Rows whose time runs backwards, bool [m] on the device; None if the run reverses none."""
        probability = self.config.augment.reverse_probability
        if not probability:
            return None
        reverse = draw_reversals(batch.rows, seed=self.config.seed, epoch=epoch, probability=probability)
        return reverse.to(self.world.device, non_blocking=True)
