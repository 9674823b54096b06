"""Checks of all names in a configuration against the dataclasses that it fills, before anything is built.

An unknown option or class raises an error that lists the valid ones. No class is ever imported because a configuration
names it: it must be a known subclass of the type that its field declares, of this package or of a loaded plug-in. Of a
full class path, as older files have it, only the last part is used.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hms_dist.config.recipes import folder_of, is_name, recipe_path
from hms_dist.config.safe_yaml import read_yaml
from hms_dist.config.types import choices, expected, fits, is_config, is_mapping, options_of
from hms_dist.config.versions import (
    CLASS_KEY,
    OPTIONS_KEY,
    VERSION_KEY,
    bare_name,
    completed,
    split_version,
    without_removed,
)
from hms_dist.core import limits
from hms_dist.core.errors import UserError, suggestion
from hms_dist.core.plugins import HINT


def checked(node: Any, target: Any, where: str, version: int | None = None) -> tuple[Any, set[str]]:
    """Check the plain value `node` against the annotation `target`.

    Returns the value for the parser and the full names of its classes. File names are replaced by the files' content
    and class paths by class names; options that a file of an older format `version` lacks are added (None: not a stored
    configuration). Raises UserError for unknown names and values of another type; `where` is the file in the message,
    or the option, which begins with `--`.
    """
    check = Check()
    return check.names(node, target, where, version), check.classes


class Check:
    """Check of one configuration and of all files that it names."""

    def __init__(self) -> None:
        self.classes: set[str] = set()
        """Full names of the classes in the configuration."""
        self._files: list[Path] = []
        self._keys: list[str] = []
        """Names of the options that lead to the one being checked."""

    def file(self, cls: type, given: str) -> Any:
        """Read and check a file of options, given as a recipe name or a path. Raises UserError."""
        folder = folder_of(cls)
        path = str(recipe_path(folder, given, "--config")) if folder and is_name(given) else given
        content = read_yaml(Path(path))
        if not isinstance(content, Mapping):
            found = "nothing" if content is None else " ".join(str(content).split())[:40]
            raise UserError(
                f"{path}: expected options, a line each like 'name: value', found '{found}'; is it another file?"
            )
        return self._content(content, cls, path)

    def names(self, node: Any, target: Any, where: str, version: int | None = None) -> Any:
        """Check names as `checked` does. Raises UserError."""
        if _is_file(node) and _takes_file(target):
            path = Path(node) if where.startswith("--") else Path(where).parent / node
            return self._nested(path, target)
        if isinstance(node, str) and (folder := folder_of(target)) and is_name(node):
            return self._nested(recipe_path(folder, node, where), target)
        if isinstance(node, str) and "://" in node and Path in choices(target) and str not in choices(target):
            raise UserError(
                f"{where}: expected a file or folder here, found the URL '{_brief(node)}'; copy it to this machine "
                "first"
            )
        if inspect.isclass(target) and inspect.isabstract(target):
            return self._class(node, target, where, version)
        if not (inspect.isclass(target) and dataclasses.is_dataclass(target)):
            return self._items(node, target, where, version)
        hints = options_of(target)
        if node is None:
            return None
        if not isinstance(node, Mapping):
            raise UserError(
                f"{where}: expected options or a .yaml file of them, found {_brief(repr(node))}; one of: "
                + ", ".join(hints)
            )
        if not where.startswith("--"):
            node = without_removed(node, target.__name__, where)
        for name, item in node.items():
            if name not in hints:
                hint = suggestion(str(name), list(hints))
                raise UserError(f"{where}: unknown option '{_brief(name)}'; {hint}one of: {', '.join(hints)}")
            if item is None and not _allows_null(hints[name]):  # the parser accepts null within lists
                raise UserError(f"{where}: {name}: expected a value, found null; leave it out to take its default")
        found = {}
        for name, item in node.items():
            self._keys.append(name)
            self.check_type(item, hints[name], _join(where, name))
            found[name] = self.names(item, hints[name], _join(where, name), version)
            self._keys.pop()
        return found if version is None else completed(found, target.__name__, version)

    def check_type(self, node: Any, target: Any, where: str) -> None:
        """Raise UserError for a value of another type than the annotation `target`."""
        if Path in (*choices(target), item_of(target)) and (node == "" or (isinstance(node, list) and "" in node)):
            raise UserError(
                f"{self._place(where)}: expected a path, found an empty one; give one, or leave the option out"
            )
        is_recipe = isinstance(node, str) and folder_of(target) and is_name(node)
        if not (fits(node, target) or is_recipe or (_is_file(node) and _takes_file(target))):
            raise UserError(f"{self._place(where)}: expected {expected(target)}, found {_brief(repr(node))}")

    def _place(self, where: str) -> str:
        return where if where.startswith("--") else ": ".join([where, ".".join(self._keys)])

    def _nested(self, path: Path, target: Any) -> Any:
        if path in self._files or len(self._files) >= limits.YAML_FILES:
            raise UserError(f"{path}: names itself, or one of more than {limits.YAML_FILES} files; name each file once")
        self._files.append(path)
        found = self._content(read_yaml(path), target, str(path))
        self._files.remove(path)
        return found

    def _content(self, content: Any, target: Any, path: str) -> Any:
        """Content of a configuration file; a file with a format version is a stored configuration."""
        version = None
        if isinstance(content, Mapping) and VERSION_KEY in content:
            content, version = split_version(content, path)
        return self.names(content, target, path, version)

    def _items(self, node: Any, target: Any, where: str, version: int | None) -> Any:
        arguments = [a for a in typing.get_args(target) if a not in (type(None), Ellipsis)]
        origin = typing.get_origin(target)
        if isinstance(node, str) and is_config(item_of(target)):
            self.names(node, item_of(target), where, version)  # one item in place of the list
        if isinstance(node, Mapping) and is_mapping(origin):
            return {
                name: self.names(item, arguments[1], _join(where, str(name)), version) for name, item in node.items()
            }
        if isinstance(node, list) and origin in (list, tuple):
            return [self.names(item, arguments[0], where, version) for item in node]
        if origin in (typing.Union, types.UnionType) and node is not None and node not in words_of(target):
            for argument in arguments:
                node = self.names(node, argument, where, version)
        return node

    def _class(self, node: Any, base: type, where: str, version: int | None) -> Any:
        name = node.get(CLASS_KEY) if isinstance(node, Mapping) else node
        if name is None and not node:
            return node
        known = {c.__name__: c for c in _subclasses(base) if not inspect.isabstract(c)}
        chosen = known.get(bare_name(name)) if isinstance(name, str) else None
        same = {c.__module__ for c in _subclasses(base) if chosen is not None and c.__name__ == chosen.__name__}
        if len(same) > 1:
            raise UserError(
                f"{where}: two classes are named '{_brief(name)}', in {' and '.join(sorted(same))}; rename the "
                "plug-in's"
            )
        if chosen is None:
            raise UserError(
                f"{where}: unknown {base.__name__.lower()} '{_brief(name)}'; one of: {', '.join(sorted(known))}{HINT}"
            )
        self.classes.add(f"{chosen.__module__}.{chosen.__qualname__}")
        if not isinstance(node, Mapping):
            return chosen.__name__
        other = [key for key in node if key not in (CLASS_KEY, OPTIONS_KEY)]
        if other:
            raise UserError(f"{where}: unknown option '{_brief(other[0])}'; one of: {CLASS_KEY}, {OPTIONS_KEY}")
        found = {**node, CLASS_KEY: chosen.__name__}
        if node.get(OPTIONS_KEY) or version is not None:
            found[OPTIONS_KEY] = self.names(node.get(OPTIONS_KEY) or {}, chosen, where, version)
        return found


def _is_file(node: Any) -> bool:
    return isinstance(node, str) and node.endswith((".yaml", ".yml"))


def _takes_file(target: Any) -> bool:
    """Whether a YAML file may replace a value: options, or a list or mapping of options."""
    if any(choice in (str, Path) for choice in choices(target)):
        return False
    for choice in choices(target):
        items = [a for a in typing.get_args(choice) if a is not Ellipsis]
        origin = typing.get_origin(choice)
        if is_config(choice) or (is_mapping(origin) and items[1] not in (str, Path)):
            return True
        if origin in (list, tuple) and items and _takes_file(items[0]):
            return True
    return False


def _allows_null(target: Any) -> bool:
    return any(choice in (Any, type(None)) or is_config(choice) for choice in choices(target))


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def item_of(target: Any) -> Any:
    """Element type of a variable-length tuple, also of an optional one; None for other annotations."""
    for choice in choices(target):
        if typing.get_origin(choice) is tuple and typing.get_args(choice)[1:] == (Ellipsis,):
            return typing.get_args(choice)[0]
    return None


def words_of(target: Any) -> list[Any]:
    """Alternatives to a list: null and the words that the annotation allows."""
    literals = [one for one in choices(target) if one is not target and typing.get_origin(one) is typing.Literal]
    return ["null", *(word for literal in literals for word in typing.get_args(literal))]


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where.startswith("--") else where
