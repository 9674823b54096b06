"""A fixed scale and shift, for panels with a fixed range."""

from dataclasses import dataclass

from torch import Tensor

from hms_dist.canvas.normalise.normaliser import Normaliser


@dataclass(frozen=True, kw_only=True)
class Affine(Normaliser):
    """(value + shift) * scale, for panels with a fixed range; non-finite values become 0."""

    shift: float = 0.0
    """Added first, in the panel's unit."""
    scale: float = 1.0
    """Then multiplied, in pixel values per panel unit."""

    def __call__(self, values: Tensor) -> Tensor:
        """Normalise as described in the class."""
        return ((values + self.shift) * self.scale).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
