"""The interface of every normalisation."""

from abc import ABC, abstractmethod

from torch import Tensor

LOG_POWER_UNIT = "ln(power)"
"""Unit of panels that hold natural-log power, with NaN for gaps and -inf for zero power."""


class Normaliser(ABC):
    """A normalisation: a frozen dataclass of options, and a pure function of the regions of a placement."""

    @property
    def unit(self) -> str | None:
        """Panel unit that it applies to; None: any."""
        return None

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """Map `values` float32 [m, ...] in the panel's unit to finite float32 of the same shape, row by row."""
