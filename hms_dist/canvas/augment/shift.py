"""A shift along time, by the same number of seconds in every placement."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hms_dist.canvas.augment.augmentation import Change
from hms_dist.canvas.augment.draws import Floats, RowDraws, between
from hms_dist.canvas.augment.layout import Layout


@dataclass(frozen=True, kw_only=True)
class TimeShift(Change):
    """Shift every placement along its time axis by the same seconds, to the nearest pixel (3rd place: random windows).

    The missing part at one end is filled by reflection, because recordings contain neither empty time nor constant
    lines. Placements whose panel does not specify times are not shifted.
    """

    max_s: float = 5.0
    """Limit of the shift, which is uniform in [-max_s, max_s], seconds; a negative shift shows later content."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.max_s > 0:
            raise ValueError(f"max_s: expected above 0, found {self.max_s}")

    @property
    def moves_time(self) -> bool:
        """True."""
        return True

    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Draw the shift of every placement in pixels: [n, areas]."""
        shift_s = between(draws.uniform(1), (-self.max_s, self.max_s))
        pixels_per_s = np.array([area.length / area.span_s if area.span_s else 0.0 for area in layout.areas])
        return np.rint(shift_s * pixels_per_s)

    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """See the class."""
        moved = images.clone()
        for area, pixels in zip(layout.areas, parameters.long().unbind(1), strict=True):
            part = moved[:, 0, area.top : area.bottom, area.left : area.right]
            sources = _mirrored(torch.arange(area.length, device=images.device) - pixels[:, None], area.length)
            index = sources[:, :, None] if area.time_down else sources[:, None, :]
            part.copy_(part.gather(1 if area.time_down else 2, index.expand_as(part)))
        return moved


def _mirrored(places: Tensor, length: int) -> Tensor:
    """Reflect integers into the range 0 to `length` - 1."""
    period = max(2 * (length - 1), 1)
    folded = places.remainder(period)
    return torch.minimum(folded, period - folded) if length > 1 else torch.zeros_like(places)
