"""Records of finished tasks in a chain: inputs and output of each.

A task is finished as long as its record matches the present: the same words, the same content of the configuration
files that they name (and of files named in those), the same input files, and the unchanged output file.
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
"""Folder of the records inside that of the chain."""


def open_tasks(tasks: dict[str, list[PipelineTask]], out: Path) -> dict[str, list[PipelineTask]]:
    """Steps with unfinished tasks, and these tasks, in order. Tasks that depend on an unfinished one are unfinished
    too."""
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
    """Whether the task is finished; its predecessors are not checked."""
    try:
        path = _record(task, out)
        record = unsealed(read_json(path), path)
    except (UserError, OSError, ValueError):
        return False
    return isinstance(record, dict) and record == {**record, **content(task, made_from(task))}


def made_from(task: PipelineTask) -> str | None:
    """Digest of everything that the task's result depends on; None if any of it is missing."""
    stamps = [_stamp(path) for path in (*task.reads, *(one.makes for one in task.before))]
    if None in stamps:
        return None
    files = sorted((portable(path), sha256_of(path)) for path in configurations(task.words))
    return digest([task.words, files, stamps])


def content(task: PipelineTask, origin: str | None) -> dict[str, Any]:
    """Content of a task's record once it is finished, given the result of `made_from` before it ran."""
    return {"from": origin, "made": [str(task.makes), _stamp(task.makes)]}


def note(task: PipelineTask, out: Path, origin: str | None) -> None:
    """Record a task as finished."""
    path = _record(task, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, sealed({"words": task.words, **content(task, origin)}))


@contextmanager
def leased(task: PipelineTask, out: Path) -> Iterator[Lease]:
    """Hold the lease of a task, so that no other process runs it. An expired lease is waited for and taken over.

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
    """Recipes and YAML files named by the words, and by these files, by name or path.

    Paths are relative to the working directory or to the file's own folder. A recipe name stands for the recipes of
    that name in all folders, because the text alone does not determine the folder.
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
    """Parsed value of a word, `--name=value` or a value alone."""
    value = word.partition("=")[2] if word.startswith("-") else word
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def _texts(node: Any) -> Iterator[str]:
    """All strings in a plain value."""
    if isinstance(node, str):
        yield node
    elif isinstance(node, dict | list):
        for item in node.values() if isinstance(node, dict) else node:
            yield from _texts(item)


def _stamp(path: Path) -> list[int] | None:
    """Size and modification time of a file; None if it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _record(task: PipelineTask, out: Path) -> Path:
    return out / RECORDS / f"{task.step}-{task.number}.json"
