"""Losses for soft labels, each with the matching conversion of logits to probabilities."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hms_dist.datasets import Target


class Loss(NamedTuple):
    """A loss for soft labels."""

    rows: Callable[[Tensor, Tensor], Tensor]
    """logits [rows, classes], targets [rows, classes] -> loss of each row [rows]."""
    probabilities: Callable[[Tensor], Tensor]
    """logits [rows, classes] -> probabilities [rows, classes]; rows sum to 1 unless the target is yes_no."""
    target: Target = "shares"
    """Kind of the targets that it is for."""


def kl_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """KL(targets || softmax(logits)) of each row: sum over classes of p (ln p - ln q), with 0 ln 0 = 0.

    The quantity of Kaggle's metric. `logits` (rows, classes) of any floating type; `targets` (rows, classes),
    probabilities. The result (rows,) is float32, float64 for float64 logits: half precision would lose two digits of
    the loss.
    """
    p = targets.to(_wide(logits))
    return torch.special.xlogy(p, p).sum(dim=-1) + ce_rows(logits, targets)


def ce_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross entropy of each row, -sum over classes of p ln q: the KL plus the entropy of the label.

    Its gradient is the KL's. Shapes and types as `kl_rows`.
    """
    dtype = _wide(logits)
    rows: Tensor = -(targets.to(dtype) * torch.log_softmax(logits.to(dtype), dim=-1)).sum(dim=-1)
    return rows


def bce_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of each row, the mean over independent classes (7th place).

    Shapes and types as `kl_rows`.
    """
    dtype = _wide(logits)
    cells = functional.binary_cross_entropy_with_logits(logits.to(dtype), targets.to(dtype), reduction="none")
    return cells.mean(dim=-1)


def bce_known_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of each row, the mean over the classes whose target is known (not NaN); 0 without any.

    -(p ln q + (1 - p) ln(1 - q)), as torch computes it. Shapes and types as `kl_rows`.
    """
    dtype, known = _wide(logits), ~torch.isnan(targets)
    given = torch.where(known, targets, 0).to(dtype)
    cells = functional.binary_cross_entropy_with_logits(logits.to(dtype), given, reduction="none")
    return (cells * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


def sigmoid(logits: Tensor) -> Tensor:
    """Convert `logits` [rows, classes] to independent probabilities, 1 / (1 + exp(-logit)): float32 or float64 as
    `kl_rows`; same shape."""
    return torch.sigmoid(logits.to(_wide(logits)))


def softmax(logits: Tensor) -> Tensor:
    """Convert `logits` [rows, classes] to probabilities of exclusive classes, exp(logit) / sum of exp(logits): float32,
    float64 for float64 logits."""
    return torch.softmax(logits.to(_wide(logits)), dim=-1)


def normalised_sigmoid(logits: Tensor) -> Tensor:
    """Convert `logits` [rows, classes] to independent probabilities p, divided by their sum: p / sum(p); types as
    `softmax`.

    Computed in logarithms, so that a row of very small ones still sums to 1.
    """
    return torch.softmax(functional.logsigmoid(logits.to(_wide(logits))), dim=-1)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


LOSSES: dict[str, Loss] = {
    "kl": Loss(kl_rows, softmax),
    "bce": Loss(bce_rows, normalised_sigmoid),
    "ce": Loss(ce_rows, softmax),
    "bce_known": Loss(bce_known_rows, sigmoid, "yes_no"),
}
"""Name -> loss. The trainer sums the weighted rows and divides by the total weight of the step."""


def register_loss(name: str, loss: Loss) -> None:
    """Add a loss of a plug-in under a new name. Raises ValueError if the name is taken."""
    if name in LOSSES:
        raise ValueError(f"{name}: there is a loss of this name; choose another")
    LOSSES[name] = loss
