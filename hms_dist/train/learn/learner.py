"""The trained state of a run: the network, its moving average and the optimiser."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from hms_dist.canvas.augment import GroupedRows
from hms_dist.model.build import compile_in_place
from hms_dist.model.freeze import freeze
from hms_dist.model.group_norms import GroupNorms
from hms_dist.model.pass_rows import draw_words, whole_groups
from hms_dist.stream.rows.epoch_plan import Pass
from hms_dist.train.data.run_data import RunData
from hms_dist.train.learn.graphs import GraphedNetwork
from hms_dist.train.learn.network import build_network, compile_mode
from hms_dist.train.learn.passes import fitting_pass_rows
from hms_dist.train.learn.step import Stepper, Tally
from hms_dist.train.optimise.ema import Ema
from hms_dist.train.optimise.loss_config import row_weights, training_targets
from hms_dist.train.optimise.optim import build_optimizer
from hms_dist.train.ranks.world import AUTOCAST, World
from hms_dist.train.settings import TrainConfig
from hms_dist.train.task import open_task


class Learner:
    """The trained state of a run on one rank."""

    def __init__(self, config: TrainConfig, data: RunData, world: World) -> None:
        """Build network and optimiser as at the start of a run."""
        self._config, self._data, self._world = config, data, world
        self.raw_model, self._pass_rows = build_network(config, world, data.shards.dataset)
        self.compile_mode = compile_mode(config, sum(data.steps_of), world.device)
        compile_in_place(self.raw_model, self.compile_mode)
        self._network = GraphedNetwork(self.raw_model, self._pass_rows)
        self.passes: tuple[Pass, ...] = ()
        """This rank's passes in every step; set by `choose_passes`."""
        self.optimizer = build_optimizer(config.optim, self.raw_model, fused=config.precision != "fp16")
        self.ema = Ema(config.ema, self.raw_model) if config.ema.decay is not None else None
        self.task = open_task(config, data.shards.canvas, data.shards.dataset, data.index.annotated_s)
        self.tally = Tally()
        self._weights = row_weights(config.loss, data.index.num_voters)
        self.pass_rows = 0
        """Largest number of rows of a pass; set by `choose_passes`."""
        self._stepper: Stepper | None = None

    @property
    def stepper(self) -> Stepper:
        """Takes the training steps. Raises RuntimeError before `begin`."""
        if self._stepper is None:
            raise RuntimeError("begin() was not called")
        return self._stepper

    def begin(self) -> None:
        """Freeze layers and wrap the model for all ranks. Call it after `choose_passes` and after restoring a
        checkpoint."""
        freeze(self.raw_model, self._config.freeze)
        self._wrap()

    def choose_passes(self, before: int | None) -> None:
        """Choose the number of rows of a pass: the configured one, or as many as fit into memory, at most `before`.

        `before`: number before a resume; None: there was none, or the number of ranks differs.
        """
        config, world = self._config, self._world
        pass_rows = config.pass_rows
        if pass_rows is None:
            pass_rows = fitting_pass_rows(
                config.batching, world, self._try_pass, most=before,
                num_parameters=sum(parameter.numel() for parameter in self.raw_model.parameters()),
            )  # fmt: skip
        self.pass_rows = pass_rows
        self.passes = tuple(config.batching.passes(world.rank, world.num_ranks, pass_rows))

    def _try_pass(self, num_rows: int, *, record: bool = False) -> None:
        """Compute a forward and a backward pass of blank images and discard the result; `record`: capture it as a
        graph."""
        config, world, canvas = self._config, self._world, self._config.canvas
        dtype = next(self.raw_model.parameters()).dtype
        size = config.group_size if num_rows % config.group_size == 0 else num_rows
        norms, key = GroupNorms(self.raw_model, self._pass_rows), (config.seed, 0, 0)
        self._pass_rows.begin(whole_groups(num_rows // size, size), draw_words(*key, range(num_rows)))
        norms.begin_step()
        norms.begin_pass()
        images = torch.zeros(num_rows, 1, canvas.height, canvas.width, device=world.device, dtype=dtype)
        shape = num_rows, self._data.shards.dataset.num_classes
        targets = torch.full(shape, 1 / shape[1], device=world.device, dtype=torch.float64)
        rows = GroupedRows(np.arange(num_rows), np.arange(num_rows), size, num_rows)
        with self._autocast():
            losses = self.task.loss_rows(self._network, images, targets, rows, key)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        del losses  # its autograd graph would bind the capture to another stream
        if record:
            with self._autocast():
                self._network.capture()
        self.optimizer.zero_grad(set_to_none=not record or len(self.passes) == 1)
        norms.cancel_step()

    @property
    def _records(self) -> bool:
        """Whether passes are captured as CUDA graphs: on a GPU, and if configured."""
        config = self._config
        on_gpu = self._world.device.type == "cuda"
        return on_gpu and config.compile_mode is not None and not config.model.grad_checkpointing

    @contextmanager
    def _autocast(self) -> Iterator[None]:
        """Autocast of trial passes. For a capture it must not cache weights, and a change of that compiles again."""
        if not self._records:
            with self._world.accelerator.autocast():
                yield
            return
        kind = AUTOCAST.get(self._world.arithmetic)
        with torch.autocast("cuda", kind, enabled=kind is not None, cache_enabled=False):
            yield

    def _graphed_rows(self) -> int:
        """Number of rows of the largest pass of whole groups, if it is computed by CUDA graphs; else 0."""
        return max((len(one) for one in self.passes if not one.is_split), default=0) if self._records else 0

    def _record(self, num_rows: int) -> None:
        """Capture passes of `num_rows` rows as CUDA graphs."""
        if len(self.passes) > 1:  # gradients are added up, in memory that is not the graph's
            for parameter in self.raw_model.parameters():
                parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
        self._try_pass(num_rows, record=True)

    def end_epoch(self) -> None:
        """Update the moving average, if it is updated once an epoch."""
        if self.ema is not None and self._config.ema.every == "epoch":
            self.ema.update()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights inside the block, if the run keeps an average."""
        if self.ema is None:
            yield
        else:
            with self.ema.in_place():
                yield

    def step_metrics(self) -> dict[str, Any]:
        """Fields of a step's line in metrics.jsonl besides the loss; `lr` is the highest of all parameter groups."""
        metrics: dict[str, Any] = {"lr": max(group["lr"] for group in self.optimizer.param_groups)}
        if self._world.device.type == "cuda":
            metrics["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(self._world.device) / 1e6)
        if self.ema is not None:
            metrics["ema_decay"] = round(self.ema.effective_decay, 6)
        if self._config.precision == "fp16":
            metrics["num_skipped"] = self.tally.num_skipped
        return metrics

    def _wrap(self) -> None:
        # accelerate keeps prepared objects: if the optimiser of the previous stage skipped its last step in fp16,
        # every step of this stage would count as skipped.
        self._world.accelerator.free_memory()
        graphed_rows = self._graphed_rows()
        if graphed_rows:
            self._record(graphed_rows)
        model, optimizer = self._world.accelerator.prepare(self._network, self.optimizer)
        data, index = self._data, self._data.index
        targets = training_targets(self._config.loss, data.labels.targets, index.num_voters, data.train_rows)
        self._stepper = Stepper(
            config=self._config, world=self._world, canvas=data.shards.canvas, model=model, optimizer=optimizer,
            norms=GroupNorms(model, self._pass_rows), pass_rows=self._pass_rows, passes=self.passes, task=self.task,
            targets=torch.from_numpy(targets), weights=torch.from_numpy(self._weights),
            facts=data.facts, ema=self.ema, graphed_rows=graphed_rows, tally=self.tally,
        )  # fmt: skip
