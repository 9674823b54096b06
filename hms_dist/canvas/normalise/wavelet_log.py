"""Logarithm of wavelet statistics, then one scale for all of them (wavelet ablation)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from hms_dist.canvas.normalise.normaliser import Normaliser

LARGEST_UV = 65504.0
"""Larger magnitudes in microvolts are clipped to this: the largest float16."""


@dataclass(frozen=True, kw_only=True)
class WaveletLog(Normaliser):
    """sign(x) ln(1 + |x|) of signed means, ln of standard deviations, then minus the mean, divided by the deviation.

    For panels in microvolts with a statistic axis whose even rows are means and odd rows standard deviations. Mean and
    (population) standard deviation at the end are over the row's shown channels together.
    """

    least_uv: float = 0.01
    """Smaller standard deviations, in microvolts, are raised to this: a flat channel has 0, the resolution of
    recordings is 0.01."""
    offset: float = 1e-6
    """Added to the standard deviation used as divisor, in the unit of the logarithms."""

    def __post_init__(self) -> None:
        for name in ("least_uv", "offset"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: must be above 0, found {getattr(self, name)}")

    @property
    def unit(self) -> str:
        """Microvolts."""
        return "uV"

    def __call__(self, values: Tensor) -> Tensor:
        """Normalise `values` [m, channels, statistics, windows] as described in the class."""
        finite = values.double().nan_to_num(nan=0.0).clamp(-LARGEST_UV, LARGEST_UV)
        logs = torch.empty_like(finite)
        means, deviations = finite[:, :, 0::2], finite[:, :, 1::2]
        logs[:, :, 0::2] = means.sign() * means.abs().log1p()
        logs[:, :, 1::2] = deviations.clamp(min=self.least_uv).log()
        flat = logs.flatten(1)
        centred = flat - flat.mean(dim=1, keepdim=True)
        deviation = centred.square().mean(dim=1, keepdim=True).sqrt()
        return (centred / (deviation + self.offset)).float().view_as(values)
