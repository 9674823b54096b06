"""The interface of every normalisation."""

from abc import ABC, abstractmethod

from torch import Tensor

LOG_POWER_UNIT = "ln(power)"
"""The unit of panels that hold natural-log power, with NaN for gaps and -inf for zero power."""


class Normaliser(ABC):
    """A kind of normalisation: a frozen dataclass of options, and a pure function of one placement's regions."""

    @property
    def unit(self) -> str | None:
        """The panel unit that it is made for; None: any."""
        return None

    @abstractmethod
    def __call__(self, values: Tensor) -> Tensor:
        """`values` float32 [m, ...] in the panel's unit to finite float32 of the same shape, each row by itself."""
