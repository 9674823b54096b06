"""What learns in a run: the network, its average, the optimiser, and which layers stand still at which epoch."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hms_dist.model.freeze import freeze
from hms_dist.model.group_norms import GroupNorms
from hms_dist.train.data.run_data import RunData
from hms_dist.train.learn.network import build_network
from hms_dist.train.learn.step import Stepper, Tally
from hms_dist.train.optimise.ema import Ema
from hms_dist.train.optimise.loss_config import row_weights, training_targets
from hms_dist.train.optimise.optim import build_optimizer
from hms_dist.train.ranks.world import World
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import open_task


class Learner:
    """The parts of a run that steps change, on one rank."""

    def __init__(self, config: TrainConfig, data: RunData, world: World) -> None:
        """Build them as a run begins. A checkpoint may be restored before the first `begin_epoch`."""
        self._config, self._data, self._world = config, data, world
        self.raw_model = build_network(config, world)
        self.optimizer = build_optimizer(config.optim, self.raw_model, fused=config.precision != "fp16")
        self.ema = Ema(config.ema, self.raw_model) if config.ema.decay is not None else None
        self.task = open_task(config, data.shards.canvas)
        self.tally = Tally()
        self._weights = row_weights(config.loss, data.index.num_voters)
        self._stepper: Stepper | None = None

    @property
    def stepper(self) -> Stepper:
        """What takes the steps; there from the first `begin_epoch` on."""
        if self._stepper is None:
            raise RuntimeError("no epoch has begun")
        return self._stepper

    def begin_epoch(self, epoch: int) -> None:
        """Freeze or free layers, and wrap the model for the ranks where that changes what they exchange."""
        changed = freeze(self.raw_model, self._config.freeze)
        if self._stepper is None:
            self._wrap()
        elif changed and self._world.num_ranks > 1:
            self._world.accelerator.unwrap_model(self.stepper.model, keep_fp32_wrapper=False)
            self._stepper = None  # DDP's hooks live as long as DDP: two at once would both sum the gradients
            self._wrap()

    def end_epoch(self) -> None:
        """Average the weights, if that is done once an epoch."""
        if self.ema is not None and self._config.ema.every == "epoch":
            self.ema.update()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within, the model has the averaged weights, if the run keeps an average."""
        if self.ema is None:
            yield
        else:
            with self.ema.in_place():
                yield

    def figures(self) -> dict[str, Any]:
        """What metrics.jsonl tells of a step besides the loss; `lr` is the highest of all parameter groups."""
        figures: dict[str, Any] = {"lr": max(group["lr"] for group in self.optimizer.param_groups)}
        figures["norm_batch"] = self.norm_batch
        if self._world.device.type == "cuda":
            figures["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(self._world.device) / 1e6)
        if self.ema is not None:
            figures["ema_decay"] = round(self.ema.effective_decay, 6)
        if self._config.precision == "fp16":
            figures["num_skipped"] = self.tally.num_skipped
        return figures

    @property
    def norm_batch(self) -> int:
        """Rows that a batch norm normalises by."""
        ranks = self._world.num_ranks if self._config.batch_norm == "sync" else 1
        return self._config.group_size * ranks

    def _wrap(self) -> None:
        # accelerate keeps what it prepared: an optimiser of the stage before that skipped its last step in fp16 would
        # count as a skipped step of this one, every time.
        self._world.accelerator.free_memory()
        model, optimizer = self._world.accelerator.prepare(self.raw_model, self.optimizer)
        data, index = self._data, self._data.index
        targets = training_targets(self._config.loss, data.labels.targets, index.num_voters, data.train_rows)
        self._stepper = Stepper(
            config=self._config, world=self._world, canvas=data.shards.canvas, model=model, optimizer=optimizer,
            norms=GroupNorms(model), task=self.task,
            targets=torch.from_numpy(targets), weights=torch.from_numpy(self._weights),
            ema=self.ema, tally=self.tally,
        )  # fmt: skip
