"""Command-line words, checked against the dataclass that they fill and converted for the parser."""

import dataclasses
import inspect
import json
import typing
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from hms_dist.config.checks import Check, item_of, words_of
from hms_dist.config.help import OWN_OPTIONS
from hms_dist.config.safe_yaml import parse_yaml, yaml_text
from hms_dist.config.types import choices, is_config, is_mapping, options_of
from hms_dist.core import limits
from hms_dist.core.errors import UserError, suggestion


def checked_words(cls: type, argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """Check command-line words (`--config file`, `--a.b value`, `--a.b=value`) against `cls`.

    Returns the words, with the content of files in place of their names so that the parser reads no file, and the full
    names of the classes in them. Raises UserError for unknown options, names and values.
    """
    check, words = Check(), list(argv)
    given = [option for option, _, _ in _options(argv)]
    for option, value, place in _options(argv):
        if option in OWN_OPTIONS:
            if option == "config" and value is not None:
                words[place] = _word(option, check.file(cls, value), argv[place])
            continue
        target = annotation_of(cls, option.split("."), f"--{option}", root=cls)
        if given.count(option) > 1 and item_of(target) is not None:
            raise UserError(f"--{option}: given twice, and the first would be lost; name all behind one --{option}")
        if value is not None:
            node = _parsed(value, f"--{option}")
            check.check_type(_value(node, target, [value, *argv[place + 1 :]]), target, f"--{option}")
            found = check.names(node, target, f"--{option}")
            if found != node:
                words[place] = _word(option, found, argv[place])
    return words, check.classes


def _value(node: Any, target: Any, words: Sequence[str]) -> Any:
    """Return the value of an option from its `words`, of which `node` is the first: text as it is, lists by word."""
    if any(choice in (str, Path) for choice in choices(target)):
        return words[0]
    item = item_of(target)
    if item is None or isinstance(node, list | Mapping) or node is None or node in words_of(target):
        return node
    others = list(takewhile(lambda word: not word.startswith("--"), words[1:]))
    return [words[0], *others] if item in (str, Path) else [node, *(_parsed(word, "") for word in others)]


def with_values(cls: type, argv: Sequence[str]) -> list[str]:
    """Convert checked words for the parser: `--repair` becomes `--repair=true`, `--runs A B` becomes one list."""
    return [word for group in _groups(argv) for word in _with_value(cls, group)]


def with_subject(cls: type, argv: Sequence[str]) -> list[str]:
    """Insert the option name of a positional value, if `cls` has exactly one required option, or one option at all."""
    fields = dataclasses.fields(cls)
    needed = [field.name for field in fields if _is_needed(field) or len(fields) == 1]
    if len(needed) == 1 and argv and not argv[0].startswith("-"):
        return [f"--{needed[0]}={argv[0]}", *argv[1:]]
    return list(argv)


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Format options as command-line words, `--name=value`; values other than text and paths are written as JSON, which
    YAML reads."""
    return [
        f"--{name}={value if isinstance(value, str | Path) else json.dumps(value, default=str)}"
        for name, value in options.items()
    ]


def _word(option: str, value: Any, word: str) -> str:
    """Replace the value in `word`, which is `--option=value` or the value alone."""
    text = yaml_text(value, flow=True).removesuffix("\n").removesuffix("\n...")
    return f"--{option}={text}" if word.startswith(f"--{option}=") else text


def _groups(argv: Sequence[str]) -> list[list[str]]:
    """Split the words before each option."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return groups


def _with_value(cls: type, group: list[str]) -> list[str]:
    option, *values = group
    if not option.startswith("--") or "=" in option or option[2:] in OWN_OPTIONS:
        return group
    target = annotation_of(cls, option[2:].split("."), option)
    if target is bool and not values:
        return [f"{option}=true"]
    item = item_of(target)
    alone = values[0] if len(values) == 1 else None
    if item is None or not values or values[0].startswith("[") or alone in words_of(target):
        return group
    return [f"{option}={json.dumps(values) if item in (str, Path) else '[' + ', '.join(values) + ']'}"]


def option_names(target: Any, prefix: str = "--", above: tuple[Any, ...] = ()) -> Iterator[str]:
    """Names of all options of a dataclass and of nested ones: --epochs, --optim, --optim.lr ..."""
    for name, hint in options_of(target).items():
        yield f"{prefix}{name}"
        for choice in choices(hint):
            if dataclasses.is_dataclass(choice) and choice not in (target, *above):
                yield from option_names(choice, f"{prefix}{name}.", (target, *above))


def annotation_of(target: Any, parts: list[str], option: str, root: Any = None) -> Any:
    """Return the annotation of a dotted option name. Raises UserError for an unknown part.

    `root`: the class whose options the message may suggest.
    """
    for part in parts:
        target = next((choice for choice in choices(target) if is_config(choice)), target)
        hints = options_of(target) if dataclasses.is_dataclass(target) else None
        if hints is not None:
            if part not in hints:
                hint = "" if root is None else suggestion(option, list(option_names(root)))
                raise UserError(f"{option}: unknown option '{part}'; {hint}one of: {', '.join(hints)}")
            target = hints[part]
        elif is_mapping(typing.get_origin(target)):
            target = typing.get_args(target)[1]
        elif inspect.isclass(target) and inspect.isabstract(target):
            if part != "class_path":
                raise UserError(f"{option}: set the options of a {target.__name__.lower()} in a YAML file")
        else:
            raise UserError(f"{option}: '{part}' is not an option of anything")
    return target


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str | None, int]]:
    """Yield each option with its (first) value and the index of the word that holds the value."""
    words = list(argv)
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            following = words[index + 1] if index + 1 < len(words) else None
            if equals:
                yield name, value, index
            elif following is None or following.startswith("--"):
                yield name, None, index
            else:
                yield name, following, index + 1


def _parsed(value: str, option: str) -> Any:
    if len(value) > limits.YAML_BYTES:
        raise UserError(f"{option}: expected at most {limits.YAML_BYTES} characters, found {len(value)}")
    try:
        return parse_yaml(value)
    except yaml.YAMLError as error:
        if "more than" in str(error) or "too deep" in str(error):
            raise UserError(f"{option}: {error}") from error
        return value


def _is_needed(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
