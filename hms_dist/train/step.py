"""One optimiser step: this rank's groups forward and backward, then one update that all ranks share."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from hms_dist.canvas.augment import Augmenter, draw_reversals
from hms_dist.canvas.compose import Canvas
from hms_dist.model.draws import seed_group
from hms_dist.model.group_norms import GroupNorms
from hms_dist.model.loss import kl_sum
from hms_dist.stream.loader import Batch
from hms_dist.train.optim import learning_rate_factor, set_learning_rate
from hms_dist.train.settings import TrainConfig
from hms_dist.train.world import World


@dataclass(frozen=True, kw_only=True)
class Step:
    """Where a step stands in the run."""

    epoch: int
    number: int
    """Within the epoch, from 0."""
    overall: int
    """Within the run, from 0."""
    num_steps: int
    """Steps of the whole run."""


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
    targets: Tensor
    """Shares of the votes [samples, 6] of the whole shard set, on the host."""

    def take(self, batches: Iterator[Batch], step: Step) -> Tensor:
        """Train on one global batch, of which `batches` gives this rank's groups; the mean loss, a scalar.

        The loss is the exact mean over the B rows on all ranks: DDP averages gradients over ranks, so each
        rank's sum counts world / B.
        """
        config, world = self.config, self.world
        rate = config.optim.lr * learning_rate_factor(config.schedule, step.overall, step.num_steps)
        set_learning_rate(self.optimizer, rate)
        groups = config.batching.groups_of(world.rank, world.num_ranks)
        total = torch.zeros((), dtype=torch.float64, device=world.device)
        self.norms.begin_step()
        for group in groups:
            batch = next(batches)
            last = group == groups[-1]
            with nullcontext() if last else world.accelerator.no_sync(self.model):
                seed_group(config.seed, step.epoch, step.number, group)
                images, targets = self._inputs(batch, step.epoch)
                loss = kl_sum(self.model(images), targets)
                world.accelerator.backward(loss * (world.num_ranks / config.global_batch))
            self.norms.after_group()
            total += loss.detach()
        if config.optim.max_grad_norm is not None:
            world.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if world.accelerator.optimizer_step_was_skipped:  # fp16 overflow: the step did not happen
            self.norms.cancel_step()
        else:
            self.norms.end_step(config.batching.num_groups, world.sum_)
        world.sum_(total)
        return total / config.global_batch

    @cached_property
    def _augmenter(self) -> Augmenter:
        return Augmenter(self.config.augment, self.canvas)

    def _inputs(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Model input [m, 1, height, width] of a group and its targets, composed and augmented on the device."""
        device, config = self.world.device, self.config
        flips = None if batch.flips is None else torch.from_numpy(batch.flips).to(device, non_blocking=True)
        images = self.canvas(batch.to(device), flips, self._reversals(batch, epoch))
        targets = self.targets[torch.from_numpy(batch.rows)].to(device, non_blocking=True)
        images, targets = self._augmenter(images, targets, batch.rows, seed=config.seed, epoch=epoch)
        return images.double() if config.precision == "float64" else images, targets

    def _reversals(self, batch: Batch, epoch: int) -> Tensor | None:
        """Rows whose time runs backwards, bool [m] on the device; None if the run reverses none."""
        probability = self.config.augment.reverse_probability
        if not probability:
            return None
        reverse = draw_reversals(batch.rows, seed=self.config.seed, epoch=epoch, probability=probability)
        return reverse.to(self.world.device, non_blocking=True)
