"""The 16th place's normalisation: scaling between two quantiles of each row's picture."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.normalise.normaliser import LOG_POWER_UNIT, Normaliser

MAX_LOG_POWER = 80.0
"""Larger natural-log powers are clipped to this, because float32 ends at exp(88.7)."""


@dataclass(frozen=True, kw_only=True)
class QuantileLog10(Normaliser):
    """log10 of power, clipped at two quantiles of the row's picture and scaled to [0, 1] (16th place).

    Gaps count as zero power. A row whose quantiles are equal is 0 throughout.
    """

    low: float = 0.01
    """Fraction of the picture's values that become 0."""
    high: float = 0.99
    """Fraction of the picture's values below 1."""
    offset: float = 1e-6
    """Added to the power before the logarithm, in the power's unit."""

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high <= 1:
            raise ValueError(f"low: must be from 0 to below high (at most 1), found {self.low} and {self.high}")
        if not self.offset > 0:
            raise ValueError(f"offset: must be above 0, found {self.offset}")

    @property
    def unit(self) -> str:
        """Natural-log power."""
        return LOG_POWER_UNIT

    def __call__(self, values: Tensor) -> Tensor:
        """Normalise as described in the class."""
        power = values.clamp(max=MAX_LOG_POWER).exp().nan_to_num(nan=0.0)
        flat = torch.log10(power + self.offset).flatten(1)
        ordered = ascending(flat)
        low, high = quantile(ordered, self.low), quantile(ordered, self.high)
        span = high - low
        scaled = (flat.clamp(low, high) - low) / torch.where(span > 0, span, 1.0)
        return scaled.view_as(values)


def ascending(values: Tensor) -> Tensor:
    """Sort each row of `values` [m, n], any float dtype.

    On the CPU numpy sorts, 25 times faster than torch, with the same result.
    """
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def quantile(ordered: Tensor, share: float) -> Tensor:
    """Quantile [m, 1] of each sorted row of `ordered` [m, n], any float dtype; linear between neighbours, numpy's
    default."""
    position = share * (ordered.shape[1] - 1)
    rank = int(position)
    lower, upper = ordered[:, rank : rank + 1], ordered[:, rank + 1 : rank + 2]
    return lower + (upper - lower) * (position - rank) if position > rank else lower
