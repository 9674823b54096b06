"""The loss of soft labels: Kullback-Leibler divergence, the Kaggle metric's own quantity."""

import torch
from torch import Tensor


def kl_rows(logits: Tensor, targets: Tensor) -> Tensor:
    """KL(targets || softmax(logits)) of each row: sum over classes of p (ln p - ln q), with 0 ln 0 = 0.

    `logits` (rows, classes) of any floating type; `targets` (rows, classes), probabilities. The result (rows,)
    is float32, float64 for float64 logits: half precision would cost two digits of the loss.
    """
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    log_q = torch.log_softmax(logits.to(dtype), dim=-1)
    p = targets.to(dtype)
    rows: Tensor = (torch.special.xlogy(p, p) - p * log_q).sum(dim=-1)
    return rows


def kl_sum(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of `kl_rows`, a scalar. The trainer divides it by the number of rows of the whole step."""
    return kl_rows(logits, targets).sum()
