"""The interface of augmentations, and `OneOf`, the random choice among several.

On the host `draw` converts keyed draws to parameters, a few numbers for each row; on the device `apply` applies them to
a batch of images, or of the signals that images are drawn from. Both get only the rows that the augmentation changes;
in a CUDA graph (`hms_dist.canvas.graphed`) `apply` also gets spare rows, whose parameters are 0 and whose result is not
used.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.canvas.augment.draws import Floats, RowDraws
from hms_dist.canvas.augment.row_facts import RowKind
from hms_dist.shards.schema import PanelSpec

Chosen = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Augmentation(ABC):
    """A random change of images or signals: a frozen dataclass of options."""

    changes: ClassVar[frozenset[str]] = frozenset({"images"})
    """Kinds of content that it can change: images, signals."""

    probability: float = 0.5
    """Share of rows that are changed; for a choice of OneOf, its weight."""
    rows: RowKind = "all"
    """Rows that may be changed: all; positive, with a class that is present; negative, without one. Where targets are
    shares, all rows are positive."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability: {self.name} expects 0 to 1, found {self.probability}")

    @property
    def name(self) -> str:
        """Name of the class, for messages."""
        return type(self).__name__

    @abstractmethod
    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """Yield the single augmentations, each with its rows and draws, from the draws of m rows.

        Every call yields the same augmentations in the same order. `chosen`: rows to change, bool [m]; None: drawn by
        `probability`.
        """

    def fault(self, height: int, width: int) -> str | None:
        """Return why it does not fit a canvas of `height` x `width` pixels; None if it fits."""
        del height, width
        return None

    def signal_fault(self, spec: PanelSpec) -> str | None:
        """Return why it does not fit a stored signal; None if it fits."""
        del spec
        return None

    def can_change(self, kind: str) -> bool:
        """Whether it can change content of a kind: images or signals."""
        return kind in self.changes

    @property
    def mixes(self) -> bool:
        """Whether it mixes rows with other rows of their group."""
        return False

    @property
    def moves_time(self) -> bool:
        """Whether it moves content along the time axis."""
        return False


class SingleAugmentation(Augmentation):
    """An augmentation other than a choice among several."""

    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """Yield itself, with the rows drawn by `probability`."""
        yield self, draws.uniform(1)[:, 0] < self.probability if chosen is None else chosen, draws.within(0)

    @abstractmethod
    def draw(self, draws: RowDraws, layout: Any) -> Floats:
        """Convert the draws of n rows to parameters [n, parameters]; their number depends on options and layout.

        `layout`: a `Layout` of images, or a `SignalLayout` of these rows.
        """


Part: TypeAlias = tuple[SingleAugmentation, Chosen, RowDraws]
"""An augmentation, the rows that it changes (bool [m]), and the draws of all m rows."""


class Change(SingleAugmentation):
    """An augmentation that changes each row independently."""

    @abstractmethod
    def apply(self, images: Tensor, parameters: Tensor, layout: Any) -> Tensor:
        """Change `images` [n, 1, height, width] by float64 `parameters` [n, parameters]; returns a new tensor."""


class Mix(SingleAugmentation):
    """An augmentation that mixes each row with another row of its group, image and label.

    The first parameter is the share of the row itself in the mixed label.
    """

    @abstractmethod
    def apply(self, images: Tensor, partners: Tensor, parameters: Tensor) -> Tensor:
        """Mix `images` with `partners`, both float32 [n, 1, height, width] (signals: [n, channels, samples]); returns a
        new tensor."""

    @property
    def mixes(self) -> bool:
        """True."""
        return True


@dataclass(frozen=True, kw_only=True)
class OneOf(Augmentation):
    """One of several augmentations, drawn by weight (as in albumentations 1.4.1)."""

    choices: tuple[Augmentation, ...]
    """The augmentations; the probability of each is its weight, and the weights need not add up to 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not sum(choice.probability for choice in self.choices) > 0:
            raise ValueError("choices: OneOf expects at least one augmentation with a probability above 0")
        if any(isinstance(choice, OneOf) and choice.rows != "all" for choice in self.choices):
            raise ValueError("choices: a OneOf within OneOf has rows: all; limit its own choices instead")

    def parts(self, draws: RowDraws, chosen: Chosen | None = None) -> Iterator["Part"]:
        """Yield the parts of every choice, each with the rows that drew it."""
        uniform = draws.uniform(2)
        chosen = uniform[:, 0] < self.probability if chosen is None else chosen
        weights = np.array([choice.probability for choice in self.choices])
        ends = np.cumsum(weights / weights.sum())
        ends[np.flatnonzero(weights)[-1] :] = 1.0  # rounding must leave no gap below 1
        drawn = np.searchsorted(ends, uniform[:, 1], side="right")
        for number, choice in enumerate(self.choices):
            yield from choice.parts(draws.within(1 + number), chosen & (drawn == number))

    def fault(self, height: int, width: int) -> str | None:
        """Return the fault of the first choice that has one."""
        faults = (choice.fault(height, width) for choice in self.choices)
        return next((fault for fault in faults if fault is not None), None)

    def signal_fault(self, spec: PanelSpec) -> str | None:
        """Return the fault of the first choice that has one."""
        faults = (choice.signal_fault(spec) for choice in self.choices)
        return next((fault for fault in faults if fault is not None), None)

    def can_change(self, kind: str) -> bool:
        """Whether all choices can."""
        return all(choice.can_change(kind) for choice in self.choices)

    @property
    def mixes(self) -> bool:
        """Whether any choice mixes rows."""
        return any(choice.mixes for choice in self.choices)

    @property
    def moves_time(self) -> bool:
        """Whether any choice moves content along the time axis."""
        return any(choice.moves_time for choice in self.choices)


def check_range(name: str, limits: tuple[float, float], low: float, high: float = float("inf")) -> None:
    """Raise ValueError naming the option unless low <= limits[0] <= limits[1] <= high."""
    if not low <= limits[0] <= limits[1] <= high:
        bound = f"from {low:g} to {high:g}" if high < float("inf") else f"of at least {low:g}"
        raise ValueError(f"{name}: expected [low, high] {bound}, low first, found {list(limits)}")
