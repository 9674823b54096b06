"""An exponential moving average of a model's weights: updated with training, evaluated and exported in their place."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hms_dist.core.errors import UserError
from hms_dist.model.weights import refresh_caches


@dataclass(frozen=True, kw_only=True)
class EmaConfig:
    """Whether the weights are averaged, how fast, how often."""

    decay: float | None = None
    """Share of the average that an update keeps, in [0, 1). None: no averaging."""
    every: Literal["step", "epoch"] = "step"
    """Update after every optimiser step, or once at the end of every epoch (seed 002)."""
    warmup: bool = False
    """Keep min(decay, (1 + n) / (10 + n)) at update n, counted from 1, as torch-ema does (seed 002: 16 updates at 0.8
    keep 0.18 rising to 0.65). False: decay from the first update."""
    evaluate_raw: bool = False
    """Evaluate the weights without averaging as well: val_kl_raw beside val_kl, at the cost of a second evaluation."""

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), or null, found {self.decay}")
        if self.decay is None and (self.warmup or self.evaluate_raw):
            raise ValueError("warmup and evaluate_raw: need an average; set decay")

    def effective_decay(self, update: int) -> float:
        """What update `update`, counted from 1, keeps of the average."""
        if self.decay is None:
            raise ValueError("no average is kept")
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay


class Ema:
    """The average of a model's state: parameters and floating buffers are averaged, whole numbers copied.

    It starts as the model's state and keeps its types, float32 (float64 in float64 runs). It is computed from the
    weights alone, which all ranks share, so all ranks hold the same average.
    """

    def __init__(self, config: EmaConfig, model: nn.Module) -> None:
        """Begin at the state of `model` (unwrapped), on its device, and follow this very model."""
        self.config = config
        self.num_updates = 0
        self._model = model
        self._owners = {name: _owner(model, name) for name in model.state_dict()}
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    @property
    def effective_decay(self) -> float:
        """What the last update kept of the average; before the first, what it will keep."""
        return self.config.effective_decay(max(self.num_updates, 1))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model. Call it after an optimiser step that took place."""
        self.num_updates += 1
        live = self._live()
        floats = [name for name, tensor in live.items() if tensor.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in floats], [live[name] for name in floats], 1 - self.effective_decay
        )
        for name in live.keys() - set(floats):
            self.tensors[name].copy_(live[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the model has the averaged weights; afterwards its own, bit for bit. Cached biases are refreshed."""
        own = {name: tensor.detach().clone() for name, tensor in self._live().items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    def restore(self, tensors: Mapping[str, Tensor], num_updates: int, source: str) -> None:
        """Continue from a saved average. Raises UserError, naming `source`, if it is of another model."""
        different = sorted(
            name
            for name in tensors.keys() | self.tensors.keys()
            if name not in tensors or name not in self.tensors or tensors[name].shape != self.tensors[name].shape
        )
        if different:
            raise UserError(
                f"{source}: this average is of another model ({len(different)} tensors differ, {different[0]} first); "
                "resume with the configuration that the run began with"
            )
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
        self.num_updates = num_updates

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self._live().items():
            tensor.copy_(tensors[name])
        refresh_caches(self._model)

    def _live(self) -> dict[str, Tensor]:
        """The tensors that the model has now. Read anew each time: moving a model replaces its tensors."""
        return {name: tensors[own] for name, (tensors, own) in self._owners.items()}


def _owner(model: nn.Module, name: str) -> tuple[dict[str, Tensor], str]:
    """The table of a module that holds the entry `name` of the model's state, and its key there."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    tables: tuple[Any, ...] = (module._parameters, module._buffers)
    return next(table for table in tables if own in table), own
