"""Exponential moving average (EMA) of a model's weights, evaluated and exported instead of the raw weights."""

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
    """Options of the moving average: decay and update interval."""

    decay: float | None = None
    """Fraction of the average kept by an update, in [0, 1). None: no averaging."""
    every: Literal["step", "epoch"] = "step"
    """Update after every optimiser step, or once at the end of every epoch (the 16th place)."""
    warmup: bool = False
    """Keep min(decay, (1 + n) / (10 + n)) at update n, counted from 1, as torch-ema does (the 16th place's 16 updates
    at 0.8 keep 0.18 rising to 0.65). False: decay from the first update."""
    evaluate_raw: bool = False
    """Also evaluate the raw weights: val_kl_raw in addition to val_kl, at the cost of a second evaluation."""

    def __post_init__(self) -> None:
        if self.decay is not None and not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected a number in [0, 1), or null, found {self.decay}")
        if self.decay is None and (self.warmup or self.evaluate_raw):
            raise ValueError("warmup and evaluate_raw: need an average; set decay")

    def effective_decay(self, update: int) -> float:
        """Fraction of the average kept by update `update`, counted from 1. Raises ValueError if no average is kept."""
        if self.decay is None:
            raise ValueError("no average is kept")
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay


class Ema:
    """The average of a model's state: parameters and floating-point buffers are averaged, integers copied.

    It starts as the model's state and keeps its dtypes, float32 (float64 in float64 runs). It is computed only from the
    weights, which all ranks share, so all ranks hold the same average.
    """

    def __init__(self, config: EmaConfig, model: nn.Module) -> None:
        """Start from the state of `model` (unwrapped), on its device, and follow this model."""
        self.config = config
        self.num_updates = 0
        self._model = model
        self._owners = {name: _owner(model, name) for name in model.state_dict()}
        self.tensors: dict[str, Tensor] = {name: tensor.detach().clone() for name, tensor in self._live().items()}

    @property
    def effective_decay(self) -> float:
        """Fraction kept by the last update; before the first, that of the first."""
        return self.config.effective_decay(max(self.num_updates, 1))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the model. Call it after an optimiser step that was not skipped."""
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
        """Inside, the model has the averaged weights; afterwards its own, bit for bit. Cached biases are refreshed."""
        own = {name: tensor.detach().clone() for name, tensor in self._live().items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    def restore(self, tensors: Mapping[str, Tensor], num_updates: int, source: str) -> None:
        """Resume from a saved average. Raises UserError, naming `source`, if it is of another model."""
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
        """The tensors that the model has now. Read each time: moving a model replaces its tensors."""
        return {name: tensors[own] for name, (tensors, own) in self._owners.items()}


def _owner(model: nn.Module, name: str) -> tuple[dict[str, Tensor], str]:
    """Return the dictionary of a module that holds the entry `name` of the model's state, and its key there."""
    path, _, own = name.rpartition(".")
    module = model.get_submodule(path)
    tables: tuple[Any, ...] = (module._parameters, module._buffers)
    return next(table for table in tables if own in table), own
