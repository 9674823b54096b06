"""The interface of every augmentation, and the choice of one among several.

Two halves: on the host `draw` turns keyed draws into parameters, a few numbers a row; on the device `apply` uses
them on pictures, batched. Only rows that get an augmentation reach either.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.draws import Floats, RowDraws
from hms_dist.canvas.augment.layout import Layout

Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Augmentation(ABC):
    """A random change to pictures: a frozen dataclass of options."""

    probability: float = 0.5
    """Share of rows that get it; among the choices of OneOf, its weight."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: {self.name} expects 0 to 1, found {self.probability}")

    @property
    def name(self) -> str:
        """The class, as messages name it."""
        return type(self).__name__

    @abstractmethod
    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """What is done to which rows [m], with the draws of all m rows. `chosen`: decided already, for OneOf."""

    def fault(self, height: int, width: int) -> str | None:
        """Why it does not fit a canvas of `height` x `width` pixels; None if it does."""
        del height, width
        return None

    @property
    def mixes(self) -> bool:
        """Whether it needs other rows of the group."""
        return False

    @property
    def moves_time(self) -> bool:
        """Whether what it shows may lie elsewhere along time afterwards."""
        return False


class SingleAugmentation(Augmentation):
    """An augmentation that is one thing, unlike a choice."""

    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """Itself, for the share of rows that `probability` says."""
        yield self, draws.uniform(1)[:, 0] < self.probability if chosen is None else chosen, draws.within(0)

    @abstractmethod
    def draw(self, draws: RowDraws, layout: Layout) -> Floats:
        """Parameters of the n rows of `draws`: [n, parameters], as many as options and layout need."""


Part: TypeAlias = tuple[SingleAugmentation, Chosen, RowDraws]
"""An augmentation, which rows it changes, and the draws of all rows."""


class Change(SingleAugmentation):
    """An augmentation of each row by itself."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Tensor, layout: Layout) -> Tensor:
        """`images` [n, 1, height, width] changed by float64 `parameters` [n, parameters]; a new tensor."""


class Mix(SingleAugmentation):
    """An augmentation of each row by another row of its group, picture and label alike.

    The first of its parameters is the share of the row that is kept, and so of its label.
    """

    @abstractmethod
    def apply(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """`images` mixed with `partners`, both [n, 1, height, width]; a new tensor."""

    @property
    def mixes(self) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, kw_only=True)
class OneOf(Augmentation):
    """One of several augmentations, drawn by their weights (albumentations 1.4.1)."""

    choices: tuple[Augmentation, ...]
    """What to choose from; the probability of each is its weight, whatever they add up to."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not sum(choice.probability for choice in self.choices) > 0:
            raise ValueError("choices: OneOf expects at least one augmentation with a probability above 0")

    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """Those of every choice, each for the rows that it fell to."""
        uniform = draws.uniform(2)
        chosen = uniform[:, 0] < self.probability if chosen is None else chosen
        weights = np.array([choice.probability for choice in self.choices])
        ends = np.cumsum(weights / weights.sum())
        ends[np.flatnonzero(weights)[-1] :] = 1.0  # rounding must leave no gap below 1
        fell_to = np.searchsorted(ends, uniform[:, 1], side="right")
        for number, choice in enumerate(self.choices):
            yield from choice.parts(draws.within(1 + number), chosen & (fell_to == number))

    def fault(self, height: int, width: int) -> str | None:
        """That of the first choice that has one."""
        faults = (choice.fault(height, width) for choice in self.choices)
        return next((fault for fault in faults if fault is not None), None)

    @property
    def mixes(self) -> bool:
        """Whether any choice does."""
        return any(choice.mixes for choice in self.choices)

    @property
    def moves_time(self) -> bool:
        """Whether any choice does."""
        return any(choice.moves_time for choice in self.choices)


def check_range(name: str, limits: tuple[float, float], low: float, high: float = float("inf")) -> None:
    """Refuse `limits` that are not low <= first <= second <= high, naming the option."""
    if not low <= limits[0] <= limits[1] <= high:
        bound = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{name}: expected [low, high] {bound}, low first, found {list(limits)}")
