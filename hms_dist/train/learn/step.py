"""One optimiser step: forward and backward for each of this rank's passes, then one update with all ranks."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.canvas.augment import Augmenter, GroupedRows, RowFacts, draw_reversals
from hms_dist.canvas.compose import Canvas
from hms_dist.canvas.graphed import GraphedInputs
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
    """Position of a step in the run, and its rows."""

    epoch: int
    number: int
    """Number of the step within the epoch, from 0."""
    overall: int
    """Number of the step within the run, from 0."""
    epoch_ends: tuple[int, ...]
    """For each epoch of the run, the number of steps up to its end."""
    rows: Rows
    """The planned rows [B] of the step. A damaged row that is replaced passes its weight on to the replacement."""
    lr_factor: float = 1.0
    """Factor on the scheduled learning rate, lowered at each plateau."""


@dataclass(kw_only=True)
class Tally:
    """Counters of the steps so far; part of every checkpoint."""

    num_skipped: int = 0
    """Steps without an update, because fp16 overflowed; they advance neither the schedule nor the moving average."""


@dataclass(frozen=True, kw_only=True)
class Stepper:
    """Takes training steps: the model, the optimiser and all else that a step uses."""

    config: TrainConfig
    world: World
    canvas: Canvas
    model: nn.Module
    """The model as accelerate prepared it: with several ranks wrapped in DDP, and with its forward under autocast."""
    optimizer: Any
    norms: GroupNorms
    pass_rows: PassRows
    """The rows of the current pass, read by the layers of `model`."""
    passes: tuple[Pass, ...]
    """This rank's passes in every step."""
    task: Task
    """The loss and the predictions of this family of models."""
    targets: Tensor
    """Target of each row of the whole shard set, float64 [samples, classes], on the host."""
    weights: Tensor
    """Loss weight of each row, float64 [samples], on the host."""
    facts: RowFacts
    """Facts about all rows that augmentations depend on."""
    ema: Ema | None
    """Moving average of the weights; None: the run keeps none."""
    graphed_rows: int
    """Number of rows of the passes that are computed by CUDA graphs; 0: none."""
    tally: Tally

    def take(self, batches: Iterator[Batch], step: OptimizerStep, *, stop: bool = False) -> StepResult:
        """Train on one global batch; `batches` yields this rank's passes. `stop`: whether this rank was asked to stop.

        The loss is the exact weighted mean over the B rows of all ranks. DDP averages gradients over ranks, so the sum
        over a rank's rows is scaled by (number of ranks) / (weight of all B rows); the plan gives every rank that
        weight. Raises UserError if the network drew from a random generator.
        """
        config, world = self.config, self.world
        set_learning_rate(self.optimizer, self.rate(step), self._momentum(step))
        weights = self.weights[torch.from_numpy(step.rows)]
        weight_sum = float(weights.sum())
        rows, losses = [], []
        with no_generator_draws(config.model.name):
            self.norms.begin_step()
            for one in self.passes:
                batch = next(batches)
                inputs = self._begin_pass(batch, step, one)
                with nullcontext() if one is self.passes[-1] else world.accelerator.no_sync(self.model):
                    row_losses = self.task.loss_rows(self.model, *inputs)
                    pass_weights = weights[torch.from_numpy(one.places)].to(world.device, non_blocking=True)
                    loss = (row_losses * pass_weights.to(row_losses.dtype)).sum()
                    world.accelerator.backward(loss * (world.num_ranks / weight_sum))
                self.norms.after_pass()
                rows.append(batch.rows[: len(one)])
                losses.append(row_losses.detach().double() * pass_weights)
        self._update()
        weighted = torch.cat(losses)
        sums = torch.stack([weighted.sum() / weight_sum, torch.full_like(weighted[0], float(stop))])
        world.sum_(sums)
        return StepResult(step.overall, AsyncScalars(sums), weighted, np.concatenate(rows))

    def _begin_pass(
        self, batch: Batch, step: OptimizerStep, one: Pass
    ) -> tuple[Tensor, Tensor, GroupedRows, tuple[int, int, int]]:
        """Prepare the network's layers for a pass, and return the arguments of the task's `loss_rows`."""
        key = (self.config.seed, step.epoch, step.number)
        self.pass_rows.begin(pieces_of(one, self.config.batching, self.world.num_ranks), draw_words(*key, one.places))
        self.norms.begin_pass()
        places = np.arange(len(batch.rows)) if batch.request.places is None else batch.request.places
        rows = GroupedRows(batch.rows, places, self.config.group_size, len(one))
        return *self._inputs(batch, rows, step.epoch), rows, key

    def _update(self) -> None:
        """Update the weights, then running statistics and moving average, unless fp16 skips the step."""
        config, accelerator = self.config, self.world.accelerator
        if config.optim.max_grad_norm is not None:
            accelerator.clip_grad_norm_(self.model.parameters(), config.optim.max_grad_norm)
        self.optimizer.step()
        # Of one pass, a graph's own memory may serve as the gradient; those of several are added up.
        self.optimizer.zero_grad(set_to_none=self.world.device.type != "cuda" or len(self.passes) == 1)
        if accelerator.optimizer_step_was_skipped:
            self.norms.cancel_step()
            self.tally.num_skipped += 1
            return
        self.norms.end_step(config.batching.num_groups, self.world.sum_)
        if self.ema is not None and config.ema.every == "step":
            self.ema.update()

    def rate(self, step: OptimizerStep) -> float:
        """Compute the learning rate of a step, without the factors of parameter groups."""
        config = self.config
        factor = learning_rate_factor(config.schedule, self._updates_before(step), step.epoch_ends)
        return config.optim.lr * factor * step.lr_factor

    def _momentum(self, step: OptimizerStep) -> float | None:
        return cycled_momentum(self.config.schedule, self._updates_before(step), step.epoch_ends)

    def _updates_before(self, step: OptimizerStep) -> int:
        return step.overall - self.tally.num_skipped

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.config.augment, self.canvas, self.facts)

    @cached_property
    def _graphed_inputs(self) -> GraphedInputs | None:
        """The graph of canvas and augmentation, if passes are computed by graphs."""
        if not self.graphed_rows:
            return None
        reverses = self.config.augment.reverse_probability > 0
        return GraphedInputs(self.canvas, self._augmenter, self.graphed_rows, self.world.device, reverses=reverses)

    def _entries(self, table: Tensor, rows: Rows) -> Tensor:
        """Select the entries of `rows` from a host table of all rows, on the device."""
        return table[torch.from_numpy(rows)].to(self.world.device, non_blocking=True)

    def _inputs(self, batch: Batch, rows: GroupedRows, epoch: int) -> tuple[Tensor, Tensor]:
        """Compose and augment the rows of a batch: model input [n, 1, height, width] and targets [n, classes]."""
        images, targets = self._from_graph(batch, rows, epoch) or self._composed(batch, rows, epoch)
        return images.double() if self.config.precision == "float64" else images, targets

    def _from_graph(self, batch: Batch, rows: GroupedRows, epoch: int) -> tuple[Tensor, Tensor] | None:
        """Compute the inputs by a graph; None if there is none for this pass."""
        if self._graphed_inputs is None:
            return None
        found = self._graphed_inputs(
            batch.panels, self.targets.numpy()[batch.rows], rows, flips=batch.flips,
            reversals=self._reversals(batch, epoch), seed=self.config.seed, epoch=epoch,
        )  # fmt: skip
        if found is not None:
            batch.slot.mark_copied()
        return found

    def _composed(self, batch: Batch, rows: GroupedRows, epoch: int) -> tuple[Tensor, Tensor]:
        """Compute the inputs operation by operation."""
        device, seed = self.world.device, self.config.seed
        flips, reversals = (
            None if chosen is None else torch.from_numpy(chosen).to(device, non_blocking=True)
            for chosen in (batch.flips, self._reversals(batch, epoch))
        )
        panels, targets = self._augmenter.signals(
            batch.to(device), self._entries(self.targets, batch.rows), rows, seed=seed, epoch=epoch
        )
        return self._augmenter(self.canvas(panels, flips, reversals), targets, rows, seed=seed, epoch=epoch)

    def _reversals(self, batch: Batch, epoch: int) -> NDArray[np.bool_] | None:
        """Draw the rows that are shown reversed in time: bool [m]; None if the run reverses none."""
        probability = self.config.augment.reverse_probability
        if not probability:
            return None
        drawn = draw_reversals(batch.rows, seed=self.config.seed, epoch=epoch, probability=probability)
        return drawn.numpy()


@contextmanager
def no_generator_draws(name: str) -> Iterator[None]:
    """Raise UserError at the end of the block if a random generator was used in it. `name`: of the model."""
    states = generator_states()
    yield
    if generator_states() != states:
        raise UserError(f"model.name: {name} drew random numbers that are not keyed by row; choose another")
