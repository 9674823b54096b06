"""The species: each has one kind of call, of one length in one band. They are the same in every simulation."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hms_dist.core.keyed import keyed_uniform
from hms_dist.datasets import Dataset

Kind = Literal["chirp", "trill", "click"]
KINDS: tuple[Kind, ...] = ("chirp", "trill", "click")
STEP_HZ = 93.75
"""Edges of boxes are multiples of it, as in RFCX's tables."""
LOWEST_HZ, HIGHEST_HZ = 93.75, 13_687.5
"""Range of the boxes."""
SHORTEST, LONGEST = 0.11, 3.17
"""Lengths of calls as a multiple of the data set's annotated_s: RFCX's 0.27 to 7.92 s."""
_BEND = 0.87
"""Power of the quantile in the logarithm of the lengths, which gives RFCX's mean, 1.02 annotated_s."""
_DECOY_RATE = 1.7
_KEY = 4004
"""Stream of keyed draws."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """The call of a species."""

    number: int
    """Number of its class."""
    kind: Kind
    """chirp: sweeps; trill: a tone that pulses; click: a train of short pulses."""
    length_s: float
    """Length of a call, that of its box."""
    low_hz: float
    """Band of a call, that of its box."""
    high_hz: float
    pulses_a_second: float
    """Sweeps, pulses or clicks a second."""
    falls: bool
    """Whether the pitch falls."""
    songtype: int
    """1 or 4, as in RFCX's tables."""

    @property
    def decoy(self) -> "Species":
        """Another sound in the same band and of the same length, which a careless detector takes for the call."""
        return replace(self, falls=not self.falls, pulses_a_second=self.pulses_a_second * _DECOY_RATE)


def all_species(dataset: Dataset) -> tuple[Species, ...]:
    """The species of the classes of a data set, whose rate limits their bands and whose annotated_s their lengths."""
    count = dataset.num_classes
    numbers = np.arange(count)
    quantiles = np.argsort(np.argsort(keyed_uniform(_KEY, 1, numbers))) / max(count - 1, 1)
    lengths = dataset.annotated_s * SHORTEST * (LONGEST / SHORTEST) ** quantiles**_BEND
    highest = min(HIGHEST_HZ, 0.45 * dataset.rate_hz)
    # Bands overlap: centres are spread evenly on a logarithmic axis, in an order of their own.
    places = (np.argsort(np.argsort(keyed_uniform(_KEY, 2, numbers))) + 0.5) / count
    centres = 4 * LOWEST_HZ * (highest / LOWEST_HZ / 6) ** places
    widths = 1.25 + 0.35 * keyed_uniform(_KEY, 3, numbers)
    rates = 4 * 5 ** keyed_uniform(_KEY, 4, numbers) * 2.5 / dataset.annotated_s
    return tuple(
        Species(
            number=number,
            kind=KINDS[number % len(KINDS)],
            length_s=float(min(lengths[number], 0.8 * dataset.window_s)),
            low_hz=_on_grid(centres[number] / widths[number], highest),
            high_hz=_on_grid(centres[number] * widths[number], highest) + STEP_HZ,
            pulses_a_second=float(max(rates[number], 2 / lengths[number])),
            falls=bool(keyed_uniform(_KEY, 5, number) < 0.5),
            songtype=4 if number % 12 == 4 else 1,
        )
        for number in range(count)
    )  # fmt: skip


def _on_grid(hertz: float, highest: float) -> float:
    return float(np.clip(round(hertz / STEP_HZ) * STEP_HZ, LOWEST_HZ, highest // STEP_HZ * STEP_HZ))
