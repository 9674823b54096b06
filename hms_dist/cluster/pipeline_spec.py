"""Configuration of a chain of steps from recordings to a report, and its tasks. Nothing runs here.

Every step is a command of hms-dist. One machine runs them in order; a scheduler runs them as dependent jobs.
"""

import re
import shlex
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from hms_dist.core import limits
from hms_dist.core.plugins import refuse_plugins

_NAME = re.compile(r"[A-Za-z]\w*", re.ASCII)
_PLACES = ("data", "out", "cpus")
"""Placeholders available in every command, besides the lists."""


@dataclass(frozen=True, kw_only=True)
class PipelineStep:
    """One command of hms-dist, or one for each value of a list.

    Texts may contain {data}, {out}, {cpus} (number of CPUs for the step) and {names of lists}; {{ and }} are braces.
    """

    name: str
    """Name in the queue, in records and in other steps."""
    purpose: str = ""
    """One-line description, printed before the step runs."""
    command: str
    """Words of hms-dist, split as a shell splits them. A word that names a list which the step does not run over is
    repeated for each of its values."""
    makes: str
    """File whose existence marks the step as finished: the file that its command writes last."""
    each: str | None = None
    """List that the step runs over, one task per value. None: one task."""
    after: tuple[str, ...] = ()
    """Earlier steps whose files it reads. If they run over the same list, each task reads the files of its own
    value."""
    reads: tuple[str, ...] = ()
    """Files from outside the chain; if one changes, the step runs again."""
    job: Literal["render", "finish", "seeds"] = "finish"
    """Job of the cluster configuration whose CPUs, GPUs, memory and time the step requests."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"steps.name: expected letters, digits and _, found '{self.name}'")
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"steps.command: that of step '{self.name}' cannot be split: {error}") from error
        if not words:
            raise ValueError(f"steps.command: that of step '{self.name}' is empty; expected words of hms-dist")
        refuse_plugins(words, f"steps.command: that of step '{self.name}'")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Steps in order, and the values of their placeholders."""

    RECIPE_FOLDER = "pipeline"

    data: str
    """{data}: folder of recordings in Kaggle's layout."""
    out: Path
    """{out}: folder of everything that the chain writes; OUT/steps records finished tasks."""
    lists: Mapping[str, tuple[int | str, ...]] = field(default_factory=dict)
    """Values to run over, such as {seed: [0, 1]}: {seed} is replaced by one of them."""
    steps: tuple[PipelineStep, ...]
    """The steps, earlier ones first."""

    def __post_init__(self) -> None:
        for name, values in self.lists.items():
            if not _NAME.fullmatch(name) or name in _PLACES:
                raise ValueError(f"lists: '{name}' cannot name a list; choose another name")
            if not values or len(set(values)) < len(values):
                raise ValueError(f"lists.{name}: expected different values, at least one, found {list(values)}")
        if not self.steps:
            raise ValueError("steps: expected at least one")
        known: set[str] = set()
        for step in self.steps:
            self._check(step, known)
            known.add(step.name)

    def _check(self, step: PipelineStep, earlier: set[str]) -> None:
        if step.name in earlier:
            raise ValueError(f"steps: two are named '{step.name}'; give each its own name")
        for name in step.after:
            if name not in earlier:
                raise ValueError(f"steps.after: '{name}' of step '{step.name}' is not an earlier step")
        if step.each is not None and step.each not in self.lists:
            raise ValueError(f"steps.each: no list '{step.each}' for step '{step.name}'")
        own = () if step.each is None else (step.each,)
        _check_places(step, step.command, (*_PLACES, *self.lists))
        for text in (step.makes, *step.reads):
            _check_places(step, text, ("data", "out", *own))


@dataclass(frozen=True)
class PipelineTask:
    """A command of the chain. {cpus} stays in its words, because it does not affect the result."""

    step: str
    number: int
    """Index in the list of its step, from 0."""
    value: str | None
    """Its value of that list; None without one."""
    purpose: str
    words: tuple[str, ...]
    makes: Path
    reads: tuple[Path, ...]
    before: tuple["PipelineTask", ...]
    """Tasks that must be finished first."""

    @property
    def title(self) -> str:
        """Step and value, for messages."""
        return self.step if self.value is None else f"{self.step} {self.value}"


def tasks_of(chain: Chain) -> dict[str, list[PipelineTask]]:
    """The tasks of every step, in order."""
    found: dict[str, list[PipelineTask]] = {}
    for step in chain.steps:
        values = (None,) if step.each is None else chain.lists[step.each]
        found[step.name] = [_task(chain, step, number, value, found) for number, value in enumerate(values)]
    return found


def _task(
    chain: Chain, step: PipelineStep, number: int, value: int | str | None, earlier: dict[str, list[PipelineTask]]
) -> PipelineTask:
    places = {"data": chain.data, "out": str(chain.out), "cpus": "{cpus}"}
    if step.each is not None:
        places[step.each] = str(value)
    each_of = {one.name: one.each for one in chain.steps}
    before = [
        task
        for name in step.after
        for task in earlier[name]
        if step.each is None or each_of[name] != step.each or task.number == number
    ]
    words = [text for word in shlex.split(step.command) for text in _texts(word, places, chain.lists)]
    return PipelineTask(
        step=step.name,
        number=number,
        value=None if value is None else str(value),
        purpose=step.purpose,
        words=tuple(words),
        makes=Path(step.makes.format(**places)),
        reads=tuple(Path(text.format(**places)) for text in step.reads),
        before=tuple(before),
    )


def _texts(word: str, places: Mapping[str, str], lists: Mapping[str, tuple[int | str, ...]]) -> list[str]:
    """Fill in a word's placeholders, once for each value of the lists that it names in addition."""
    loops = sorted({name for name in _named(word) if name not in places})
    return [
        word.format(**places, **dict(zip(loops, values, strict=True)))
        for values in product(*(lists[name] for name in loops))
    ]


def _check_places(step: PipelineStep, text: str, valid: tuple[str, ...]) -> None:
    try:
        named = _named(text)
    except ValueError as error:
        raise ValueError(
            f"steps: step '{step.name}': '{text}' ({error}); write {{{{ for a brace, {{slice:0>6}} for leading zeros"
        ) from error
    for place in named:
        if place not in valid:
            known = ", ".join(f"{{{name}}}" for name in valid)
            raise ValueError(f"steps: step '{step.name}': '{text}' names {{{place}}}; one of: {known}")


def _named(text: str) -> list[str]:
    """Placeholders in a text. Raises ValueError for unmatched braces and invalid format specifications."""
    places = [(name, form) for _, name, form, _ in string.Formatter().parse(text) if name is not None]
    for _, form in places:
        if len(form or "") > limits.FORM_CHARACTERS:
            raise ValueError(f"a form of more than {limits.FORM_CHARACTERS} characters")
        format("", form or "")
    return [name for name, _ in places]
