"""Search space: parameters, the options that they set, and narrowing between batches."""

import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from hms_dist.core.errors import UserError

Values = Mapping[str, Any]
"""Parameter name -> value."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter: a numeric range, or choices."""

    sets: str
    """Option to set, by dotted name; * stands for every item of a list, a number for one item."""
    low: float | None = None
    """Smallest value. None: the parameter has choices."""
    high: float | None = None
    """Largest value. None: the parameter has choices."""
    log: bool = False
    """Sample uniformly in the logarithm."""
    choices: tuple[Any, ...] = ()
    """Allowed values: text, numbers, true, false or null. Empty: the parameter has a range."""

    def __post_init__(self) -> None:
        has_range = self.low is not None and self.high is not None
        if has_range == bool(self.choices) or (self.low is None) != (self.high is None):
            raise ValueError(f"space: '{self.sets}' needs low and high, or choices, and not both")
        if self.low is not None and self.high is not None:
            if not self.low <= self.high:
                raise ValueError(f"low: must not be above high, found {self.low} and {self.high} for '{self.sets}'")
            if self.log and not self.low > 0:
                raise ValueError(f"low: must be above 0 for log, found {self.low} for '{self.sets}'")

    def narrowed(self, best: Sequence[Any], factor: float) -> "Parameter":
        """Narrow for the next batch, given the values of the best trials so far, best first.

        A range keeps `factor` of its width (of its logarithm, with log) around the best value and within its bounds;
        choices keep those in `best`.
        """
        if self.low is None or self.high is None:
            return replace(self, choices=tuple(choice for choice in self.choices if choice in best))
        there, back = (math.log, math.exp) if self.log else (float, float)
        low, high, centre = there(self.low), there(self.high), there(best[0])
        half = factor * (high - low) / 2
        centre = min(max(centre, low + half), high - half)
        return replace(self, low=max(back(centre - half), self.low), high=min(back(centre + half), self.high))


def with_values(config: Mapping[str, Any], space: Mapping[str, Parameter], values: Values) -> dict[str, Any]:
    """Set each parameter's option in a training configuration (plain values, from `to_dict`).

    Raises UserError naming a parameter whose option the configuration does not have.
    """
    changed = deepcopy(dict(config))
    for name, parameter in space.items():
        num_set = _set(changed, parameter.sets.split("."), values[name])
        if not num_set:
            raise UserError(
                f"space.{name}.sets: the training configuration has no '{parameter.sets}'; correct the name"
            )
    return changed


def narrowed(
    space: Mapping[str, Parameter], trials: Sequence[tuple[float, Values]], factor: float
) -> dict[str, Parameter]:
    """Return the space of the next batch from (value, parameters) of the finished trials; smaller is better.

    Choices are taken from the best quarter. Without a finished trial the space is unchanged.
    """
    if not trials:
        return dict(space)
    ranked = [values for _, values in sorted(trials, key=lambda trial: trial[0])]
    best = ranked[: math.ceil(len(ranked) / 4)]
    return {name: part.narrowed([values[name] for values in best], factor) for name, part in space.items()}


def _set(node: Any, path: Sequence[str], value: Any) -> int:
    """Set the value at `path` in nested mappings and lists; return the number of places set."""
    name, *rest = path
    if isinstance(node, dict):
        keys: list[Any] = [name] if name in node else []
    elif isinstance(node, list):
        places = range(len(node)) if name == "*" else [int(name)] if name.isdecimal() else []
        keys = [place for place in places if place < len(node)]
    else:
        keys = []
    if rest:
        return sum(_set(node[key], rest, value) for key in keys)
    for key in keys:
        node[key] = value
    return len(keys)
