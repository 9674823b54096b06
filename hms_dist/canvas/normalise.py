"""From stored values to pixel values: one class a published normalisation, all finite whatever comes in."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

LOG_POWER_UNIT = "ln(power)"
"""The unit of panels that hold natural-log power, with NaN for gaps and -inf for zero power."""
MAX_LOG_POWER = 80.0
"""Larger natural-log powers count as this, since float32 ends at exp(88.7)."""


class Normaliser(ABC):
    """A kind of normalisation: a frozen dataclass of options, and a pure function of one placement's regions."""

    @property
    def unit(self) -> str | None:
        """The panel unit that it is made for; None: any."""
        return None

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """`values` float32 [m, ...] in the panel's unit to finite float32 of the same shape, each row by itself."""


@dataclass(frozen=True, kw_only=True)
class QuantileLog10(Normaliser):
    """log10 of power, cut at two quantiles of the row's picture and scaled to [0, 1] (16th place).

    Gaps count as zero power. A row whose quantiles are equal is 0 throughout.
    """

    low: float = 0.01
    """Share of the picture's values that become 0."""
    high: float = 0.99
    """Share of the picture's values below 1."""
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
        """See the class."""
        power = values.clamp(max=MAX_LOG_POWER).exp().nan_to_num(nan=0.0)
        flat = torch.log10(power + self.offset).flatten(1)
        ordered = ascending(flat)
        low, high = quantile(ordered, self.low), quantile(ordered, self.high)
        span = high - low
        scaled = (flat.clamp(low, high) - low) / torch.where(span > 0, span, 1.0)
        return scaled.view_as(values)


@dataclass(frozen=True, kw_only=True)
class Standardise(Normaliser):
    """Natural-log power, clipped, less its mean and divided by its standard deviation (public baseline).

    Mean and (population) standard deviation are over the row's values that are not gaps; gaps become 0.
    """

    low_ln: float = -4.0
    """Natural logarithm of the power that lower ones count as."""
    high_ln: float = 8.0
    """Natural logarithm of the power that higher ones count as."""
    offset: float = 1e-6
    """Added to the standard deviation."""

    def __post_init__(self) -> None:
        if not self.low_ln < self.high_ln:
            raise ValueError(f"low_ln: must be below high_ln, found {self.low_ln} and {self.high_ln}")
        if not self.offset > 0:
            raise ValueError(f"offset: must be above 0, found {self.offset}")

    @property
    def unit(self) -> str:
        """Natural-log power."""
        return LOG_POWER_UNIT

    def __call__(self, values: Tensor) -> Tensor:
        """See the class."""
        gaps = values.isnan().flatten(1)
        # float64, so that the sums do not depend on how the device or the batch splits them.
        clipped = values.flatten(1).double().clamp(self.low_ln, self.high_ln).masked_fill(gaps, 0.0)
        count = (~gaps).sum(dim=1, keepdim=True).clamp(min=1)
        centred = (clipped - clipped.sum(dim=1, keepdim=True) / count).masked_fill(gaps, 0.0)
        deviation = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()
        return (centred / (deviation + self.offset)).float().view_as(values)


@dataclass(frozen=True, kw_only=True)
class Affine(Normaliser):
    """(value + shift) * scale, for pictures that come in a fixed range; what is not finite becomes 0."""

    shift: float = 0.0
    """Added first, in the panel's unit."""
    scale: float = 1.0
    """Then multiplied, in pixel values per panel unit."""

    def __call__(self, values: Tensor) -> Tensor:
        """See the class."""
        return ((values + self.shift) * self.scale).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def ascending(values: Tensor) -> Tensor:
    """`values` [m, n], each row sorted. On the CPU numpy sorts, 25 times faster than torch; the result is one."""
    if values.device.type == "cpu":
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def quantile(ordered: Tensor, share: float) -> Tensor:
    """Quantile of each sorted row of `ordered` [m, n], linear between neighbours as numpy's default: [m, 1]."""
    position = share * (ordered.shape[1] - 1)
    rank = int(position)
    lower, upper = ordered[:, rank : rank + 1], ordered[:, rank + 1 : rank + 2]
    return lower + (upper - lower) * (position - rank) if position > rank else lower
