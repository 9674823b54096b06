"""One optimiser step: this rank's passes forward and backward, then one update that all ranks share."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hms_dist.canvas.augment import Augmenter, GroupedRows, draw_reversals
from hms_dist.canvas.compose import Canvas
from hms_dist.core.errors import UserError
from hms_dist.model.by_rows import generator_states
from hms_dist.model.group_norms import GroupNorms
from hms_dist.model.pass_rows import PassRows, draw_words
from hms_dist.shards.index import Rows
from hms_dist.stream.read.loader import Batch
from hms_dist.stream.rows.epoch_plan import Pass
from hms_dist.train.learn.passes import pieces_of
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
    """The B rows of the step as planned: a replacement has the weight of the row that it replaces."""
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
    pass_rows: PassRows
    """What the layers of `model` know of the rows of a pass."""
    passes: tuple[Pass, ...]
    """What this rank computes of every step."""
    task: Task
    """What the model learns from pictures and labels."""
    targets: Tensor
    """Label of each row [samples, classes] of the whole shard set, on the host."""
    weights: Tensor
    """Weight of each row [samples], on the host."""
    ema: Ema | None
    """Average of the weights; None: there is none."""
    tally: Tally

    def take(self, batches: Iterator[Batch], step: OptimizerStep, *, stop: bool = False) -> StepResult:
        """Train on one global batch, of which `batches` gives this rank's passes. `stop`: this rank was asked to.

        The loss is the exact weighted mean over the B rows on all ranks: DDP averages gradients over ranks, so each
        rank's sum counts world / the weight of all B rows, which every rank knows from the plan. Raises UserError if
        the network drew from a generator.
        """
        config, world = self.config, self.world
        set_learning_rate(self.optimizer, self.rate(step), self._momentum(step))
        weights = self.weights[torch.from_numpy(step.rows)]
        weight_sum = float(weights.sum())
        rows, losses = [], []
        states = generator_states()
        self.norms.begin_step()
        for one in self.passes:
            batch = next(batches)
            with nullcontext() if one is self.passes[-1] else world.accelerator.no_sync(self.model):
                row_losses = self._row_losses(batch, step, one)
                of_pass = weights[torch.from_numpy(one.places)].to(world.device, non_blocking=True)
                loss = (row_losses * of_pass.to(row_losses.dtype)).sum()
                world.accelerator.backward(loss * (world.num_ranks / weight_sum))
            self.norms.after_pass()
            rows.append(batch.rows[: len(one)])
            losses.append(row_losses.detach().double() * of_pass)
        if generator_states() != states:
            raise UserError(
                f"model.name: {config.model.name} drew random numbers that are not keyed by row; choose another"
            )
        self._update()
        every = torch.cat(losses)
        sums = torch.stack([every.sum() / weight_sum, torch.full_like(every[0], float(stop))])
        world.sum_(sums)
        return StepResult(step.overall, AsyncScalars(sums), every, np.concatenate(rows))

    def _row_losses(self, batch: Batch, step: OptimizerStep, one: Pass) -> Tensor:
        """Losses of the rows of a pass [rows]."""
        key = (self.config.seed, step.epoch, step.number)
        self.pass_rows.begin(pieces_of(one, self.config.batching, self.world.num_ranks), draw_words(*key, one.places))
        self.norms.begin_pass()
        places = np.arange(len(batch.rows)) if batch.request.places is None else batch.request.places
        rows = GroupedRows(batch.rows, places, self.config.group_size, len(one))
        images, targets = self._inputs(batch, rows, step.epoch)
        return self.task.loss_rows(self.model, images, targets, rows, key)

    def _update(self) -> None:
        """Move the weights, and what follows them: norms and average stay behind when fp16 skips the step."""
        config, accelerator = self.config, self.world.accelerator
        if config.optim.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=self.world.device.type != "cuda")
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

    def _inputs(self, batch: Batch, rows: GroupedRows, epoch: int) -> tuple[Tensor, Tensor]:
        """Model input [n, 1, height, width] of the rows of a batch and their targets, composed and augmented."""
        device, config = self.world.device, self.config
        flips = None if batch.flips is None else torch.from_numpy(batch.flips).to(device, non_blocking=True)
        images = self.canvas(batch.to(device), flips, self._reversals(batch, epoch))
        images, targets = self._augmenter(
            images, self._of(self.targets, batch.rows), rows, seed=config.seed, epoch=epoch
        )
        return images.double() if config.precision == "float64" else images, targets

    def _reversals(self, batch: Batch, epoch: int) -> Tensor | None:
        """Rows whose time runs backwards, bool [m] on the device; None if the run reverses none."""
        probability = self.config.augment.reverse_probability
        if not probability:
            return None
        reverse = draw_reversals(batch.rows, seed=self.config.seed, epoch=epoch, probability=probability)
        return reverse.to(self.world.device, non_blocking=True)
