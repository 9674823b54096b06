"""Plug-ins: modules of the user's own that add panels, augmentations, losses, selections and models.

A module is imported only if the user names it, by `--plugins` on the command line or `hms_dist.load_plugins`. Stored
configurations record the names and versions; reading one without its plug-ins is an error, and imports nothing.
"""

import hashlib
import importlib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from hms_dist.core.errors import UserError, first_line
from hms_dist.core.logging import LOG

OPTION = "--plugins"
HINT = f"; one of your own needs {OPTION} MODULE"
"""End of the error for an unknown name that a plug-in could add."""
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)
_VERSION = re.compile(r"[\w.+:!-]{1,100}", re.ASCII)
_MOST = 50
"""Largest number of plug-ins of one record."""
_loaded: dict[str, str] = {}
"""Modules that were named, and their versions."""


class MissingPluginError(UserError):
    """A file was made with plug-ins that are not loaded."""


def load_plugins(*names: str) -> None:
    """Import modules that add panels, augmentations, losses, selections or models (docs/plugins.md).

    Each is an import path, `my_panels` or `package.module`, found as Python finds modules and then in the current
    folder. Raises UserError for a module that is missing or fails to import, or whose `__version__` is not a version.
    """
    here = os.getcwd()
    if names and here not in sys.path:
        sys.path.append(here)  # last, so that a file here replaces no installed module; worker processes inherit it
    for name in names:
        if not _NAME.fullmatch(name):
            raise UserError(f"{OPTION}: expected the import path of a module, such as my_panels, found '{name[:100]}'")
        if name not in _loaded:
            _loaded[name] = _version(name, _imported(name))


def loaded_plugins() -> dict[str, str]:
    """Return the loaded plug-ins: import path -> version."""
    return dict(_loaded)


def plugin_words() -> list[str]:
    """Return the words that give a command, started by this one, the same plug-ins."""
    return [OPTION, *_loaded] if _loaded else []


def split_plugins(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split command-line words into the names after `--plugins` (up to the next option) and all others.

    Raises UserError if none follows.
    """
    names: list[str] = []
    others: list[str] = []
    is_name = False
    for word in words:
        if word == OPTION or word.startswith(f"{OPTION}="):
            names += [name for name in word[len(OPTION) + 1 :].split(",") if name]
            is_name = True
        elif is_name and not word.startswith("-"):
            names.append(word)
        else:
            is_name = False
            others.append(word)
    if len(others) < len(words) and not names:
        raise UserError(f"{OPTION}: expected import paths of modules, such as my_panels")
    return names, others


def refuse_plugins(words: Iterable[str], where: str) -> None:
    """Raise ValueError for words of a configuration that name plug-ins: only the command line may."""
    if any(word == OPTION or word.startswith(f"{OPTION}=") for word in words):
        raise ValueError(
            f"{where}: {OPTION} is for the command line alone, whose plug-ins are passed on; remove it here"
        )


def check_plugins(record: Any, where: str) -> None:
    """Raise MissingPluginError, naming the option, if a record lists plug-ins that are not loaded.

    `record`: value of the key `plugins` of a stored configuration in `where`; None: made without plug-ins. Another
    version is logged. Raises UserError for a damaged record.
    """
    if record is None:
        return
    if not isinstance(record, Mapping) or len(record) > _MOST or not all(map(_is_entry, record, record.values())):
        raise UserError(f"{where}: plugins: expected names of modules with versions; the file is damaged")
    missing = [name for name in record if name not in _loaded]
    if missing:
        names = " ".join(missing)
        raise MissingPluginError(
            f"{where}: made with the plug-in{'s' if len(missing) > 1 else ''} {', '.join(missing)}, not loaded here; "
            f"add {OPTION} {names} (in Python hms_dist.load_plugins)"
        )
    for name, version in record.items():
        if _loaded[name] != version:
            LOG.warning("%s: made with version %s of the plug-in %s, found %s", where, version, name, _loaded[name])


def _is_entry(name: Any, version: Any) -> bool:
    return (
        isinstance(name, str)
        and isinstance(version, str)
        and len(name) <= 200
        and _NAME.fullmatch(name) is not None
        and _VERSION.fullmatch(version) is not None
    )


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UserError(
                f"{OPTION}: no module '{name}' in the current folder or among the installed ones; check the name"
            ) from error
        raise _failed(name, error) from error
    except UserError:
        raise
    except Exception as error:  # any that the user's code raises
        raise _failed(name, error) from error


def _failed(name: str, error: Exception) -> UserError:
    last = extract_tb(error.__traceback__)[-1]
    return UserError(
        f"{OPTION}: {name} cannot be imported: {type(error).__name__}: {first_line(error)} "
        f"({last.filename}, line {last.lineno}); correct the module"
    )


def _version(name: str, module: ModuleType) -> str:
    """Return `__version__` of a module; without it, the first digits of its file's SHA-256."""
    version = getattr(module, "__version__", None)
    if version is None:
        path = getattr(module, "__file__", None)
        return "unknown" if path is None else f"sha256:{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]}"
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise UserError(f"{OPTION}: {name}.__version__: expected text such as '1.0', found {str(version)[:40]!r}")
    return version
