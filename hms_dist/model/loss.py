"""Losses for soft labels, each with the matching conversion of logits to probabilities."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Loss(NamedTuple):
    """A loss for soft labels."""

    rows: Callable[[Tensor, Tensor], Tensor]
    """logits [rows, classes], targets [rows, classes] -> loss of each row [rows]."""
    probabilities: Callable[[Tensor], Tensor]
    """logits [rows, classes] -> probabilities [rows, classes] that sum to 1."""


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


def softmax(logits: Tensor) -> Tensor:
    """Probabilities of mutually exclusive classes, float32, float64 for float64 logits."""
    return torch.softmax(logits.to(_wide(logits)), dim=-1)


def normalised_sigmoid(logits: Tensor) -> Tensor:
    """Independent probabilities of the classes, divided by their sum; float32, float64 for float64 logits.

    Computed in logarithms, so that a row of very small ones still sums to 1.
    """
    return torch.softmax(functional.logsigmoid(logits.to(_wide(logits))), dim=-1)


def _wide(logits: Tensor) -> torch.dtype:
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


LOSSES: dict[str, Loss] = {
    "kl": Loss(kl_rows, softmax),
    "bce": Loss(bce_rows, normalised_sigmoid),
    "ce": Loss(ce_rows, softmax),
}
"""Name -> loss. The trainer sums the weighted rows and divides by the total weight of the step."""
