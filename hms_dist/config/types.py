"""Comparison of plain values with the declared types of options, and descriptions of the types for errors.

Answers as jsonargparse does, which reads the values in the end, in words for the user of the option.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping
from itertools import repeat
from pathlib import Path
from typing import Any

import yaml

from hms_dist.config.safe_yaml import parse_yaml

_NAMES = {
    bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path", type(None): "null"
}  # fmt: skip
_NUMBERS: dict[Any, Any] = {bool: bool, int: int, float: int | float}
_PLAIN: dict[Any, Any] = {str: str, Path: str | Path, type(None): type(None)}


def fits(node: Any, target: Any) -> bool:
    """Whether the plain value `node` is one of annotation `target`. Options within options are not looked at."""
    return any(_fits(node, choice) for choice in choices(target))


def expected(target: Any) -> str:
    """The values of an annotation, in words."""
    return " or ".join(_words(choice) for choice in choices(target))


def choices(target: Any) -> tuple[Any, ...]:
    """Members of a union annotation, or the annotation itself."""
    either = typing.get_origin(target) in (typing.Union, types.UnionType)
    return typing.get_args(target) if either else (target,)


def is_config(target: Any) -> bool:
    """Whether an annotation is a dataclass of options, or a base class of selectable ones."""
    return inspect.isclass(target) and (dataclasses.is_dataclass(target) or inspect.isabstract(target))


def is_mapping(origin: Any) -> bool:
    """Whether the origin of an annotation is one of names and values."""
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _fits(node: Any, target: Any) -> bool:
    origin, arguments = typing.get_origin(target), typing.get_args(target)
    if origin is typing.Literal:
        return node in arguments
    if is_config(target):
        return isinstance(node, str | Mapping)
    if target in _PLAIN or not (target in _NUMBERS or origin):
        return isinstance(node, _PLAIN.get(target, object))
    node = _unquoted(node)
    if target in _NUMBERS:
        return isinstance(node, _NUMBERS[target]) and isinstance(node, bool) == (target is bool)
    if is_mapping(origin):
        return isinstance(node, Mapping) and all(fits(item, arguments[1]) for item in node.values())
    items = repeat(arguments[0]) if _is_of_any_length(target) else arguments
    is_long_enough = isinstance(node, list | tuple) and (isinstance(items, repeat) or len(node) == len(arguments))
    return is_long_enough and all(map(fits, node, items))


def options_of(target: Any) -> dict[str, Any]:
    """Return the options of a dataclass and their types; class variables are not options."""
    hints = typing.get_type_hints(target)
    return {field.name: hints[field.name] for field in dataclasses.fields(target)}


def is_required(field: "dataclasses.Field[Any]") -> bool:
    """Whether an option has no default."""
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _unquoted(node: Any) -> Any:
    """A number, a list or a mapping that is written as text."""
    try:
        return parse_yaml(node) if isinstance(node, str) else node
    except yaml.YAMLError:
        return node


def _is_of_any_length(target: Any) -> bool:
    return typing.get_origin(target) is list or typing.get_args(target)[1:] == (Ellipsis,)


def _words(target: Any) -> str:
    origin, arguments = typing.get_origin(target), typing.get_args(target)
    if origin is typing.Literal:
        return ("one of " if len(arguments) > 1 else "") + ", ".join(map(str, arguments))
    if origin in (tuple, list):
        each = f"a list, each {expected(arguments[0])}"
        return each if _is_of_any_length(target) else f"[{', '.join(map(expected, arguments))}]"
    if is_mapping(origin):
        return f"names, each with {expected(arguments[1])}"
    return "options" if is_config(target) else _NAMES.get(target, "a value")
