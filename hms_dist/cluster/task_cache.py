"""What of a chain is done: a record for each task, of what it was made from and what it made.

A task is done while its record says what would be recorded now: the same words, the same content of the configuration
files that they name and that those name in turn, the same files read, and the file it made as it was left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from hms_dist.cluster.pipeline_spec import PipelineTask
from hms_dist.config.recipes import installed, portable, recipes_called
from hms_dist.config.safe_yaml import read_yaml
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, read_json, sealed, sha256_of, unsealed, write_json
from hms_dist.jobs.lease import Lease, LeaseHeld, acquire, await_expiry

RECORDS = "steps"
"""Folder of the records in that of the chain."""


def open_tasks(tasks: dict[str, list[PipelineTask]], out: Path) -> dict[str, list[PipelineTask]]:
    """The steps that have something left to do, with those tasks, in order. What follows an open task is open too."""
    found: dict[str, list[PipelineTask]] = {}
    still_open: set[tuple[str, int]] = set()
    for step, every in tasks.items():
        for task in every:
            waits = any((one.step, one.number) in still_open for one in task.before)
            if waits or not is_done(task, out):
                still_open.add((step, task.number))
                found.setdefault(step, []).append(task)
    return found


def is_done(task: PipelineTask, out: Path) -> bool:
    """Whether the task has nothing left to do; what is before it is taken as it stands."""
    try:
        path = _record(task, out)
        record = unsealed(read_json(path), path)
    except (UserError, OSError, ValueError):
        return False
    return isinstance(record, dict) and record == {**record, **content(task, made_from(task))}


def made_from(task: PipelineTask) -> str | None:
    """Digest of all that the task's result follows from; None if any of it is not there yet."""
    stamps = [_stamp(path) for path in (*task.reads, *(one.makes for one in task.before))]
    if None in stamps:
        return None
    files = sorted((portable(path), sha256_of(path)) for path in configurations(task.words))
    return digest([task.words, files, stamps])


def content(task: PipelineTask, origin: str | None) -> dict[str, Any]:
    """What the record of a task holds once it is done, given what `made_from` said before it ran."""
    return {"from": origin, "made": [str(task.makes), _stamp(task.makes)]}


def note(task: PipelineTask, out: Path, origin: str | None) -> None:
    """Record a task as done."""
    path = _record(task, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sealed({"words": task.words, **content(task, origin)}))


@contextmanager
def leased(task: PipelineTask, out: Path) -> Iterator[Lease]:
    """Hold the claim of a task, so that nobody else does it at the same time. A dead owner's is waited out.

    Raises UserError naming an owner that is alive.
    """
    path = _record(task, out).with_suffix(".claim")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        await_expiry(path)
        with acquire(path) as held:
            yield held
    except LeaseHeld as error:
        raise UserError(f"step {task.title}: {error}; wait for its end, or choose another --out") from error


def configurations(words: tuple[str, ...]) -> Iterator[Path]:
    """The recipes and YAML files that words name, and that these name, by name or path.

    Paths are from where the command runs or from the folder of the file that names them. Of a recipe's name, those of
    all folders count: the text alone does not say which is meant.
    """
    recipes = recipes_called(("augment", "canvas", "grid", "render", "search", "train"))
    seen: set[Path] = set()
    waiting = [(Path(), text) for word in words for text in _texts(_parsed(word))]
    while waiting:
        folder, word = waiting.pop()
        text = installed(word)
        for path in (folder / text, Path(text), *recipes.get(text, ())):
            if path.suffix == ".yaml" and path not in seen and path.is_file():
                seen.add(path)
                yield path
                waiting += [(path.parent, inner) for inner in _texts(read_yaml(path))]


def _parsed(word: str) -> Any:
    """The value of a word, `--name=value` or alone."""
    value = word.partition("=")[2] if word.startswith("-") else word
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _texts(node: Any) -> Iterator[str]:
    """Every string in a plain value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _texts(item)


def _stamp(path: Path) -> list[int] | None:
    """Size and time of change of a file; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _record(task: PipelineTask, out: Path) -> Path:
    return out / RECORDS / f"{task.step}-{task.number}.json"
