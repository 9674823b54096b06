"""Folders that appear atomically: written next to their place, hashed, synced, then renamed.

`hashes.json`, written last, holds the SHA-256 of every other file of the folder, so that a reader detects later damage.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.files import read_json, sha256_of, sync, write_json

HASHES_NAME = "hashes.json"
_NAME = re.compile(r"\w[\w.-]{0,99}")
"""File names in such a folder: none leads out of it."""


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `target`, replacing an older one.

    A kill at any moment leaves the older `target`, the new one, or (between two renames) the older one where `present`
    and the next writer find it. One writer per folder at a time, any number of readers.
    """
    temporary, old = _hidden(target, "new"), _hidden(target, "old")
    put_back(target)
    discard(old)
    discard(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        paths = sorted(temporary.iterdir())
        for path in paths:
            path.chmod(0o666 & ~_umask())  # safetensors creates files readable only by the user
            sync(path)
        write_json(temporary / HASHES_NAME, {path.name: sha256_of(path) for path in paths})
    except BaseException:
        discard(temporary)
        raise
    if target.exists():
        target.rename(old)
    temporary.rename(target)
    sync(target.parent)
    discard(old)


def put_back(target: Path) -> None:
    """Restore `target` after a kill between two renames."""
    if not target.exists():
        with suppress(FileNotFoundError):  # nothing to restore, or another rank was faster
            _hidden(target, "old").rename(target)


def present(target: Path) -> Path | None:
    """Where to read what `whole_folder` last wrote as `target`; None if there is nothing. Changes nothing."""
    return next((path for path in (target, _hidden(target, "old")) if path.is_dir()), None)


def damage(folder: Path, names: Iterable[str]) -> str | None:
    """Return the fault of a folder that `whole_folder` wrote, naming the file; None if every byte is intact.

    `names` are the files that will be read; each needs a hash.
    """
    try:
        hashes = read_json(folder / HASHES_NAME)
    except (OSError, ValueError) as error:
        return f"{folder / HASHES_NAME}: {error.strerror if isinstance(error, OSError) else 'not JSON'}"
    if not isinstance(hashes, dict) or not hashes or not all(_NAME.fullmatch(name) for name in hashes):
        return f"{folder / HASHES_NAME}: not a table of hashes"
    for name in names:
        if name not in hashes:
            return f"{folder / HASHES_NAME}: no hash of {name}"
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            return f"{path}: missing"
        if sha256_of(path) != expected:
            return f"{path}: its SHA-256 is not the one in {HASHES_NAME}"
    return None


def recorded_hash(folder: Path, name: str) -> str:
    """SHA-256 of a file in a folder, from its hashes.json. Raises UserError without one."""
    path = folder / HASHES_NAME
    try:
        hashes = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({first_line(error)}); restore it from a copy, or train again") from error
    value = hashes.get(name) if isinstance(hashes, dict) else None
    if not isinstance(value, str):
        raise UserError(f"{path}: no hash of {name}; restore it from a copy, or train again")
    return value


def discard(folder: Path) -> None:
    """Delete a folder, if it exists, so that a partly deleted one never looks whole."""
    if not folder.exists():
        return
    if not folder.name.startswith("."):
        gone = _hidden(folder, "gone")
        discard(gone)
        folder = folder.rename(gone)
    shutil.rmtree(folder)


def _hidden(folder: Path, role: str) -> Path:
    return folder.with_name(f".{folder.name}.{role}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
