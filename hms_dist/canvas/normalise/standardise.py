"""Log power minus a mean, divided by a standard deviation: of the row's own picture, or of all training rows."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hms_dist.canvas.normalise.normaliser import LOG_POWER_UNIT, Normaliser


@dataclass(frozen=True, kw_only=True)
class LogPowerNormaliser(Normaliser):
    """Options shared by the standardisations: clipping of natural-log power, and the treatment of gaps."""

    low_ln: float = -4.0
    """Natural logarithm of the power to which lower ones (also zero) are clipped."""
    high_ln: float = 8.0
    """Natural logarithm of the power to which higher ones are clipped."""
    gaps: Literal["mean", "low"] = "mean"
    """mean: gaps are excluded from the statistics and become 0 (wavelet ablation, public baseline). low: gaps count as
    a power below `low_ln` (course report, which sets them to -1 before clipping)."""
    offset: float = 1e-6
    """Added to the standard deviation, ln(power)."""

    def __post_init__(self) -> None:
        if not self.low_ln < self.high_ln:
            raise ValueError(f"low_ln: must be below high_ln, found {self.low_ln} and {self.high_ln}")
        if not self.offset > 0:
            raise ValueError(f"offset: must be above 0, found {self.offset}")

    @property
    def unit(self) -> str:
        """Natural-log power."""
        return LOG_POWER_UNIT

    def _clipped(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        """Clip `values` [m, ...] to [m, n], 0 where excluded; also return the excluded ones, bool [m, n] (None:
        none)."""
        flat = values.flatten(1)
        if self.gaps == "low":
            return flat.nan_to_num(nan=self.low_ln, neginf=self.low_ln).clamp_(self.low_ln, self.high_ln), None
        left_out = flat.isnan()
        return _without(flat.clamp(self.low_ln, self.high_ln), left_out), left_out

    def moments(self, values: Tensor) -> Tensor:
        """Count, mean and sum of squared differences from the mean for each row of `values` [m, ...]; float64 [m,
        3]."""
        clipped, left_out = self._clipped(values.double())
        return torch.cat(_moments(clipped, left_out)[1:], dim=1)


@dataclass(frozen=True, kw_only=True)
class Standardise(LogPowerNormaliser):
    """Each row's picture minus its own mean, divided by its own (population) standard deviation.

    The defaults are those of the wavelet ablation and the public baseline; the course report has low_ln -6, high_ln 10,
    gaps low.
    """

    def __call__(self, values: Tensor) -> Tensor:
        """Normalise as described in the class."""
        centred, count, _, squares = _moments(*self._clipped(values))
        deviation = (squares / count.clamp(min=1)).sqrt() + self.offset
        return centred.div_(deviation.to(centred.dtype)).view_as(values)


@dataclass(frozen=True, kw_only=True)
class DataWide(LogPowerNormaliser):
    """Every row's picture minus one mean, divided by one standard deviation, those of the training rows (course
    report)."""

    low_ln: float = -6.0
    """Natural logarithm of the power to which lower ones (also zero) are clipped."""
    high_ln: float = 10.0
    """Natural logarithm of the power to which higher ones are clipped."""
    gaps: Literal["mean", "low"] = "low"
    """As for Standardise."""
    mean: float | None = None
    """Mean of the rows' means, ln(power). None: computed from the training rows of the run."""
    deviation: float | None = None
    """Standard deviation of all values around that mean, ln(power). None: computed like `mean`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.mean is None) != (self.deviation is None):
            raise ValueError("mean: give both mean and deviation, or neither to have them computed")
        if self.deviation is not None and self.deviation < 0:
            raise ValueError(f"deviation: must be 0 or above, found {self.deviation}")

    def __call__(self, values: Tensor) -> Tensor:
        """Normalise as described in the class. Raises ValueError while `mean` and `deviation` are None."""
        if self.mean is None or self.deviation is None:
            raise ValueError("mean: data-wide statistics are not known yet; compute them and use `with_moments`")
        clipped, left_out = self._clipped(values)
        scaled = clipped.sub_(self.mean).div_(self.deviation + self.offset)
        return _without(scaled, left_out).view_as(values)

    def with_moments(self, moments: Tensor) -> "DataWide":
        """Return a copy with mean and deviation of the rows with these `moments` [rows, 3], in float64.

        The mean of the rows' means, each row counting once, then the root of the mean square around it, each value
        counting once. Rows without values do not count; 0 and 0 if none has any.
        """
        count, mean, squares = moments[moments[:, 0] > 0].T
        centre = mean.mean() if len(mean) else torch.zeros((), dtype=torch.float64)
        about = squares + count * (mean - centre).square()
        deviation = (about.sum() / count.sum().clamp(min=1)).sqrt()
        return replace(self, mean=float(centre), deviation=float(deviation))


def _moments(clipped: Tensor, left_out: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values minus their mean, 0 where excluded, [m, n]; count, mean and sum of squares, [m, 1].

    Sums are float64, so that they do not depend on how the device or the batch splits them.
    """
    length = torch.full((len(clipped), 1), clipped.shape[1], dtype=torch.float64, device=clipped.device)
    count = length if left_out is None else length - left_out.sum(dim=1, keepdim=True)
    mean = clipped.sum(dim=1, keepdim=True, dtype=torch.float64) / count.clamp(min=1)
    centred = _without(clipped - mean.to(clipped.dtype), left_out)
    squares = torch.linalg.vector_norm(centred, dim=1, keepdim=True, dtype=torch.float64).square()
    return centred, count, mean, squares


def _without(values: Tensor, left_out: Tensor | None) -> Tensor:
    """Set excluded `values` to 0, in place."""
    return values if left_out is None else values.masked_fill_(left_out, 0.0)
