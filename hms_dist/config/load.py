"""Configuration: frozen dataclasses filled from YAML files and the command line.

The only module that uses jsonargparse. `checks` reads the files and checks all names before the parser runs, so a
configuration cannot import code from outside this package, and an unknown name gets an error that lists the valid ones.
"""

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from traceback import walk_tb
from typing import Any, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace, set_parsing_settings

from hms_dist.config.checks import checked
from hms_dist.config.command_line import checked_words, option_words, with_values
from hms_dist.config.help import ShortHelp
from hms_dist.config.recipes import folder_of
from hms_dist.config.safe_yaml import yaml_text
from hms_dist.config.types import choices, expected, options_of
from hms_dist.config.versions import CLASS_KEY, FORMAT_VERSION, OPTIONS_KEY, PLUGINS_KEY, VERSION_KEY, split_version
from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic, sealed_text
from hms_dist.core.plugins import loaded_plugins

T = TypeVar("T")

_MISSING = "the following arguments are required: "
"""Beginning of the parser's message about missing options."""


def load(cls: type[T], argv: Sequence[str], prog: str = "hms-dist") -> T:
    """Build `cls` from command-line words: `--config FILE` (several are merged in order) and `--dotted.name value`.

    A boolean option may be given without a value: `--name` means `--name true`. Raises UserError with one line for an
    unknown name, a wrong type or an invalid combination.
    """
    words, classes = checked_words(cls, argv)
    parser = _parser(cls, prog, classes)
    return _build(cls, parser, parser.parse_args, with_values(cls, words))


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "configuration") -> T:
    """Build `cls` from plain values as `to_dict` returns them. Raises UserError as `load` does."""
    return _from_checked(cls, *checked(_options(values, where), cls, where))


def resolved(cls: type[T], value: T | Mapping[str, Any] | str | Path, options: Mapping[str, Any] | None = None) -> T:
    """Build `cls` from an instance, plain values, or the name or path of a recipe, with further `options` by dotted
    names.

    Raises UserError as `load` does.
    """
    if isinstance(value, str | Path):
        words = ["--config", str(value)]
    elif isinstance(value, Mapping):
        words = option_words(value)
    elif not options:
        return value
    else:
        words = option_words(to_dict(value))
    return load(cls, [*words, *option_words(options or {})])


def from_stored(cls: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build `cls` from what `stored` returned, now or in an earlier format version; `where` is the file.

    Values without a format version are of version 1. Raises UserError as `load` does, and for a later format version.
    """
    options, version = split_version(_options(values, where), where)
    return _from_checked(cls, *checked(options, cls, where, version))


def to_dict(value: Any) -> Any:
    """Convert a configuration to plain JSON/YAML values; classes chosen by name become class_path and init_args."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if any(inspect.isabstract(base) for base in type(value).__mro__[1:]):
            return {CLASS_KEY: type(value).__name__, OPTIONS_KEY: fields}
        return fields
    if isinstance(value, Mapping):
        return {str(key): to_dict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def stored(config: Any) -> dict[str, Any]:
    """Convert a configuration to plain values for storage: `to_dict` plus the format version and loaded plug-ins."""
    plugins = loaded_plugins()
    return {VERSION_KEY: FORMAT_VERSION, **({PLUGINS_KEY: plugins} if plugins else {}), **to_dict(config)}


def save(config: Any, path: Path) -> None:
    """Write a configuration as YAML; `load` and `from_stored` read it back to an equal one."""
    save_stored(stored(config), path)


def save_stored(values: Mapping[str, Any], path: Path) -> None:
    """Write what `stored` returned as YAML with its digest (`files.check_sealed_text`)."""
    with atomic(path, "w") as file:
        file.write(sealed_text(yaml_text(dict(values))))


def _options(values: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: expected options, found {values!r}; the file is damaged")
    return values


def _from_checked(cls: type[T], values: Any, classes: Iterable[str]) -> T:
    parser = _parser(cls, "hms-dist", classes)
    return _build(cls, parser, parser.parse_object, values)


def _parser(cls: type, prog: str, classes: Iterable[str]) -> ArgumentParser:
    """`classes`: full names of the classes in the configuration; no other may be imported, and no file is read."""
    set_parsing_settings(
        docstring_parse_attribute_docstrings=True,
        instantiate_subclass_spec_in_any=False,
        import_path_denylist=["*"],
        import_path_allowlist=["hms_dist", cls.__module__, *classes],
    )
    parser = ArgumentParser(prog=prog, description=inspect.getdoc(cls), exit_on_error=False, add_help=False)
    parser.add_argument("--help_all", action="help", help="Explain every option and exit.")
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    parser.add_class_arguments(cls, sub_configs=False)
    needed = [action.dest for action in parser._actions if action.required]
    parser.add_argument("-h", "--help", action=ShortHelp, needed=needed)
    return parser


def _build(cls: type[T], parser: ArgumentParser, parse: Any, source: Any) -> T:
    parsed: Any = None
    try:
        parsed = parse(source)
        values = vars(parser.instantiate(parsed))
        values.pop("config", None)
        return cls(**values)
    except (ArgumentError, TypeError, ValueError) as error:
        own = _own(error)
        message = " ".join(str(own).split())
        raise UserError(_with_advice(_group_of(own, message, cls, parsed) + message, cls)) from error


def _with_advice(message: str, cls: type) -> str:
    """Add to the parser's line about missing options how they are given."""
    before, found, names = message.partition(_MISSING)
    if not found or before:
        return message
    hints = typing.get_type_hints(cls)
    words = {name: f" ({expected(hint)})" for name, hint in hints.items() if typing.get_origin(hint) is typing.Literal}
    options = ", ".join(f"--{name}{words.get(name, '')}" for name in names.split(", "))
    recipe = ", or by --config a recipe that has them (hms-dist recipes)" if folder_of(cls) else ""
    return f"required and not given: {options}; give them on the command line{recipe}"


def _group_of(error: BaseException, message: str, cls: type, parsed: Any) -> str:
    """Return the group of the option that `message` names first, with a dot: `seeds.` for `time: expected ...` in the
    group `seeds`. Empty for an option outside of groups, and for one of an item of a list."""
    refused = [
        frame.f_locals["self"] for frame, _ in walk_tb(error.__traceback__) if frame.f_code.co_name == "__post_init__"
    ]
    if not refused or type(refused[-1]) is cls or parsed is None:
        return ""
    found = refused[-1]
    if message.partition(":")[0] not in options_of(type(found)):
        return ""
    plain = {name: value for name, value in to_dict(found).items() if "{" not in repr(value)}  # no groups within
    for name, kind, values in _groups(cls, parsed):
        if kind is type(found) and all(to_dict(values[key]) == value for key, value in plain.items()):
            return f"{name}."
    return ""


def _groups(cls: type, parsed: Any) -> Iterator[tuple[str, type, dict[str, Any]]]:
    """Yield the dotted name of each group of options, its class and its parsed values."""
    for name, hint in options_of(cls).items():
        values = getattr(parsed, name, None)
        kind = next((choice for choice in choices(hint) if dataclasses.is_dataclass(choice)), None)
        if isinstance(kind, type) and isinstance(values, Namespace):
            yield name, kind, vars(values)
            for inner, inner_kind, inner_values in _groups(kind, values):
                yield f"{name}.{inner}", inner_kind, inner_values


def _own(error: BaseException) -> BaseException:
    """Return the error that a class of options raised, without the parser's wrapping; else the error itself."""
    one: BaseException | None = error
    while one is not None:
        *_, (frame, _) = walk_tb(one.__traceback__)
        if not frame.f_globals["__name__"].startswith("jsonargparse."):
            return one
        one = one.__cause__ or one.__context__
    return error
