"""The meta-model of a stack, a small network on several models' predictions: inputs, loss, training (course report)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hms_dist.core.errors import one_of
from hms_dist.core.keyed import check_seed, keyed_hash
from hms_dist.datasets import HMS, Dataset
from hms_dist.model.loss import bce_known_rows

Floats = NDArray[np.float64]

INPUTS = ("predictions", "statistics", "both")
_WEIGHTS, _ORDER = 30, 31
"""Streams of keyed draws: initial weights, order of the rows."""


@dataclass(frozen=True, kw_only=True)
class MetaConfig:
    """The network and its training. The course report does not state sizes, learning rate and batch size."""

    inputs: str = "both"
    """predictions: those of each model; statistics: per class the minimum, maximum, mean, standard deviation and median
    over the models; both: concatenated."""
    hidden: tuple[int, ...] = (64,)
    """Number of units of each hidden layer."""
    ce_weight: float = 0.5
    """Weight of the cross-entropy with the class of most votes in the loss, 0 to 1; the rest is the KL to the votes.
    Not used for independent yes/no classes: their loss is the log loss over known cells."""
    lr: float = 0.001
    """Learning rate of Adam."""
    batch_size: int = 256
    """Rows per step."""
    max_epochs: int = 500
    """Maximum number of passes over the rows."""
    patience: int = 20
    """Training stops after this many passes without improvement of the KL or log loss on the held-out rows."""
    seed: int = 0
    """Seed of initial weights and order; 0 to 2^32 - 1."""

    def __post_init__(self) -> None:
        one_of("model.inputs", self.inputs, INPUTS)
        check_seed("model.seed", self.seed)
        for name in ("hidden", "batch_size", "max_epochs", "patience"):
            value = getattr(self, name)
            if min(value if name == "hidden" else (value,), default=1) < 1:
                raise ValueError(f"model.{name}: expected at least 1, found {value}")
        if not 0 <= self.ce_weight <= 1:
            raise ValueError(f"model.ce_weight: expected 0 to 1, found {self.ce_weight}")
        if not self.lr > 0:
            raise ValueError(f"model.lr: expected a rate above 0, found {self.lr}")


@dataclass(frozen=True)
class StackRows:
    """Inputs and targets for training or validation."""

    inputs: Tensor
    """float32 [rows, inputs]."""
    targets: Tensor
    """float32 [rows, classes], `Index.targets`."""


def meta_inputs(probabilities: Floats, inputs: str) -> Tensor:
    """Convert predictions [models, rows, classes] to network inputs, float32: [rows, classes * models], five statistics
    of each class, or both."""
    flat = probabilities.transpose(1, 0, 2).reshape(probabilities.shape[1], -1)
    statistics = np.concatenate(
        [function(probabilities, axis=0) for function in (np.min, np.max, np.mean, np.std, np.median)], axis=1
    )
    parts = {"predictions": [flat], "statistics": [statistics], "both": [flat, statistics]}[inputs]
    return torch.from_numpy(np.concatenate(parts, axis=1)).float()


def num_inputs(num_models: int, inputs: str, num_classes: int = HMS.num_classes) -> int:
    """Width of `meta_inputs`."""
    per_class = {"predictions": 0, "statistics": 5, "both": 5}[inputs] + (0 if inputs == "statistics" else num_models)
    return per_class * num_classes


def meta_network(config: MetaConfig, num_models: int, num_classes: int = HMS.num_classes) -> nn.Sequential:
    """Linear layers with ReLU between them, to a logit per class."""
    widths = [num_inputs(num_models, config.inputs, num_classes), *config.hidden, num_classes]
    layers: list[nn.Module] = []
    for below, above in pairwise(widths):
        layers += [nn.Linear(below, above), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def meta_loss(logits: Tensor, targets: Tensor, ce_weight: float, dataset: Dataset = HMS) -> Tensor:
    """Weighted sum of the cross-entropy with the consensus (the first among equals) and the KL to the votes; mean over
    rows of `logits` and `targets`, float32 [rows, classes]. For independent yes/no classes: the log loss, the mean over
    known cells."""
    if dataset.target == "yes_no":
        known = torch.isfinite(targets).sum(dim=1)
        return (bce_known_rows(logits, targets) * known).sum() / known.sum().clamp(min=1)
    rows = torch.log_softmax(logits, dim=1)
    kl = nn.functional.kl_div(rows, targets, reduction="batchmean")
    return ce_weight * nn.functional.nll_loss(rows, targets.argmax(dim=1)) + (1 - ce_weight) * kl


def predicted(network: nn.Module, inputs: Tensor, dataset: Dataset = HMS) -> Floats:
    """Probabilities [rows, classes] of a network for `inputs`, float32 [rows, num_inputs]."""
    with torch.no_grad():
        logits = network(inputs).double()
        return (torch.softmax(logits, dim=1) if dataset.target == "shares" else torch.sigmoid(logits)).numpy()


def train_network(
    config: MetaConfig, num_models: int, key: int, train: StackRows, held_out: StackRows, dataset: Dataset = HMS
) -> nn.Sequential:
    """Train a network on `train`; return the weights of the epoch with the least KL or log loss on `held_out`.

    `key` distinguishes the networks of one seed.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(config.seed, _WEIGHTS, key))
        network = meta_network(config, num_models, dataset.num_classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=config.lr)
    best, least, waited = _copy(network), float("inf"), 0
    for epoch in range(config.max_epochs):
        for rows in _batches(config, key, epoch, len(train.inputs)):
            optimizer.zero_grad()
            loss = meta_loss(network(train.inputs[rows]), train.targets[rows], config.ce_weight, dataset)
            torch.autograd.backward(loss)
            optimizer.step()
        with torch.no_grad():
            found = float(meta_loss(network(held_out.inputs), held_out.targets, 0, dataset))
        waited = 0 if found < least else waited + 1
        if not waited:
            best, least = _copy(network), found
        if waited >= config.patience:
            break
    network.load_state_dict(best)
    return network.eval()


def _batches(config: MetaConfig, key: int, epoch: int, num_rows: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(_seed(config.seed, _ORDER, key, epoch))
    order = torch.randperm(num_rows, generator=generator)
    for start in range(0, num_rows, config.batch_size):
        yield order[start : start + config.batch_size]


def _copy(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _seed(*keys: int) -> int:
    return int(keyed_hash(*keys) >> np.uint64(1))
