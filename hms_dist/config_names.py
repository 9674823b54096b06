"""Check every name in a configuration against the dataclasses it fills, before anything is built.

Two ends: an unknown option or class gets an error that lists the valid ones, and no name outside this
package is ever imported, because a class must be a known subclass of what its field declares.
"""

import dataclasses
import datetime
import inspect
import json
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hms_dist import limits
from hms_dist.errors import UserError, first_line
from hms_dist.files import read_bytes

_PARSERS_OWN = ("config", "help", "print_config")
"""Options that every command line has."""


class _Strict(yaml.SafeLoader):
    """Refuses a name that stands twice in one mapping, where YAML's readers keep the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in names:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
                names.add(key.value)
        return super().construct_mapping(node, deep)


class _Plain(yaml.SafeDumper):
    """Writes a value again wherever it stands, not as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def read_yaml(path: Path) -> Any:
    """Safe-load one YAML file; UserError if it is missing, not YAML, or too large (`limits`)."""
    try:
        return parse_yaml(read_bytes(path, limits.YAML_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error}); check the path") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def parse_yaml(text: str) -> Any:
    """The value of YAML text. Raises yaml.YAMLError for anything else, and for more than `limits` allows."""
    try:
        value = yaml.load(text, _Strict)
        if too_many := _too_many(value):
            raise yaml.YAMLError(too_many)
    except yaml.YAMLError:
        raise
    except RecursionError as error:
        raise yaml.YAMLError("lists or mappings lie too deep in one another") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
    ) as error:  # a date that is none, and the like
        raise yaml.YAMLError(first_line(error)) from error
    return value


def yaml_text(value: Any) -> str:
    """Plain values as YAML text."""
    text: str = yaml.dump(value, Dumper=_Plain, sort_keys=False)
    return text


def _too_many(value: Any) -> str:
    """Why a value takes more than it may once its aliases are replaced by what they stand for; empty if it does not."""
    level, total = [value], 0
    for _ in range(limits.YAML_DEPTH):
        total += len(level)
        if total > limits.YAML_VALUES:
            return f"more than {limits.YAML_VALUES} values"
        nested: list[Any] = []
        for one in level:
            if isinstance(one, dict):
                nested += one.values()
            elif isinstance(one, list):
                nested += one
            elif not isinstance(one, str | int | float | None | datetime.date):
                return f"expected numbers, texts, lists and mappings, found {type(one).__name__}"
            if len(nested) > limits.YAML_VALUES:
                return f"more than {limits.YAML_VALUES} values"
        level = nested
        if not level:
            return ""
    return f"more than {limits.YAML_DEPTH} lists or mappings within one another"


def checked_words(cls: type, argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """Command-line words (`--config file`, `--a.b value`, `--a.b=value`) checked against `cls`, and the classes that
    they name. What files hold stands in place of their names, so that nothing else reads a file."""
    check, words = _Check(), []
    given = [option for option, _ in _options(argv)]
    for group in _groups(argv):
        values = dict(_options(group))
        if not values:
            words += group
            continue
        ((option, value),) = values.items()
        text = None
        if option == "config" and value is not None:
            text = yaml_text(check.file(cls, value))
        elif option not in _PARSERS_OWN:
            target = _descend(cls, option.split("."), f"--{option}")
            if given.count(option) > 1 and _item_of(target) is not None:
                raise UserError(f"--{option}: given twice, and the first would be lost; name all behind one --{option}")
            if value is not None:
                parsed = _parsed(value, f"--{option}")
                resolved = check.names(parsed, target, f"--{option}")
                text = yaml_text(resolved) if resolved != parsed else None
        if text is None:
            words += group
        else:
            words += [f"--{option}={text}", *group[1 if "=" in group[0] else 2 :]]
    return words, check.classes


def with_values(cls: type, argv: Sequence[str]) -> list[str]:
    """Checked words as the parser takes them: `--repair` becomes `--repair=true`, `--runs A B` one list of two."""
    return [word for group in _groups(argv) for word in _with_value(cls, group)]


def with_subject(cls: type, argv: Sequence[str]) -> list[str]:
    """Words in which the only option that `cls` cannot do without has its name, also if it was left out."""
    needed = [field.name for field in dataclasses.fields(cls) if _is_needed(field)]
    if len(needed) == 1 and argv and not argv[0].startswith("-"):
        return [f"--{needed[0]}={argv[0]}", *argv[1:]]
    return list(argv)


def checked_names(node: Any, target: Any, where: str) -> tuple[Any, set[str]]:
    """The plain value `node` checked against the annotation `target`, and the classes that it names. What files hold
    stands in place of their names.

    `where` is the file or option for the message. Raises UserError naming what is unknown; wrong types are left to the
    parser.
    """
    check = _Check()
    return check.names(node, target, where), check.classes


class _Check:
    """One configuration, with all files that it names."""

    def __init__(self) -> None:
        self.classes: set[str] = set()
        """Full names of the classes that it names."""
        self._files: list[Path] = []

    def file(self, cls: type, path: str) -> Any:
        """A file of options."""
        content = read_yaml(Path(path))
        if not isinstance(content, Mapping):
            found = "nothing" if content is None else " ".join(str(content).split())[:40]
            raise UserError(
                f"{path}: expected options, a line each like 'name: value', found '{found}'; is it another file?"
            )
        return self.names(content, cls, path)

    def names(self, node: Any, target: Any, where: str) -> Any:
        """As `checked_names`."""
        if isinstance(node, str) and node.endswith((".yaml", ".yml")) and _takes_file(target):
            return self._nested(node, target, where)
        if inspect.isclass(target) and inspect.isabstract(target):
            return self._class(node, target, where)
        if not dataclasses.is_dataclass(target):
            return self._items(node, target, where)
        hints = typing.get_type_hints(target)
        if node is None:
            return None
        if not isinstance(node, Mapping):
            raise UserError(
                f"{where}: expected options or a .yaml file of them, found {_brief(repr(node))}; one of: "
                + ", ".join(hints)
            )
        for name, item in node.items():
            if name not in hints:
                raise UserError(f"{where}: unknown option '{_brief(name)}'; one of: {', '.join(hints)}")
            if item is None and not _allows_null(hints[name]):  # the parser lets it pass within lists
                raise UserError(f"{where}: {name}: expected a value, found null; leave it out to take its default")
        return {name: self.names(item, hints[name], _join(where, str(name))) for name, item in node.items()}

    def _nested(self, name: str, target: Any, where: str) -> Any:
        path = Path(where).parent / name if not where.startswith("--") else Path(name)
        if path in self._files or len(self._files) >= limits.YAML_FILES:
            raise UserError(f"{path}: names itself, or one of more than {limits.YAML_FILES} files; name each file once")
        self._files.append(path)
        found = self.names(read_yaml(path), target, str(path))
        self._files.remove(path)
        return found

    def _items(self, node: Any, target: Any, where: str) -> Any:
        arguments = [a for a in typing.get_args(target) if a not in (type(None), Ellipsis)]
        origin = typing.get_origin(target)
        if isinstance(node, Mapping) and _is_mapping(origin):
            return {name: self.names(item, arguments[1], _join(where, str(name))) for name, item in node.items()}
        if isinstance(node, list) and origin in (list, tuple):
            return [self.names(item, arguments[0], where) for item in node]
        if origin in (typing.Union, types.UnionType) and node is not None and node not in _words_of(target):
            for argument in arguments:
                node = self.names(node, argument, where)
        return node

    def _class(self, node: Any, base: type, where: str) -> Any:
        name = node.get("class_path") if isinstance(node, Mapping) else node
        if name is None and (node is None or not node):
            return node
        known = {c.__name__: c for c in _subclasses(base) if not inspect.isabstract(c)}
        full = {_full_name(c): c for c in known.values()}
        chosen = known.get(name) or full.get(name) if isinstance(name, str) else None
        if chosen is None:
            raise UserError(
                f"{where}: unknown {base.__name__.lower()} '{_brief(name)}'; one of: {', '.join(sorted(known))}"
            )
        self.classes.add(_full_name(chosen))
        if not isinstance(node, Mapping):
            return node
        other = [key for key in node if key not in ("class_path", "init_args")]
        if other:
            raise UserError(f"{where}: unknown option '{_brief(other[0])}'; one of: class_path, init_args")
        if not node.get("init_args"):
            return node
        return {**node, "init_args": self.names(node["init_args"], chosen, where)}


def _takes_file(target: Any) -> bool:
    """Whether a file of YAML may stand for a value: options, or a list or mapping of such."""
    choices = _choices(target)
    if any(choice in (str, Path) for choice in choices):
        return False
    for choice in choices:
        items = [a for a in typing.get_args(choice) if a is not Ellipsis]
        origin = typing.get_origin(choice)
        if _is_config(choice) or (_is_mapping(origin) and items[1] not in (str, Path)):
            return True
        if origin in (list, tuple) and items and _takes_file(items[0]):
            return True
    return False


def _allows_null(target: Any) -> bool:
    return any(choice in (Any, type(None)) or _is_config(choice) for choice in _choices(target))


def _is_mapping(origin: Any) -> bool:
    return inspect.isclass(origin) and issubclass(origin, Mapping)


def _full_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 300 else f"{text[:297]}..."


def _groups(argv: Sequence[str]) -> list[list[str]]:
    """The words, cut before each option."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([])
        groups[-1].append(word)
    return groups


def _with_value(cls: type, group: list[str]) -> list[str]:
    option, *values = group
    if not option.startswith("--") or "=" in option or option[2:] in _PARSERS_OWN:
        return group
    target = _descend(cls, option[2:].split("."), option)
    if target is bool and not values:
        return [f"{option}=true"]
    item = _item_of(target)
    alone = values[0] if len(values) == 1 else None
    if item is None or not values or values[0].startswith("[") or alone in _words_of(target):
        return group
    return [f"{option}={json.dumps(values) if item in (str, Path) else '[' + ', '.join(values) + ']'}"]


def _item_of(target: Any) -> Any:
    """What a tuple of any length holds, or an optional one; None for other annotations."""
    for choice in _choices(target):
        if typing.get_origin(choice) is tuple and typing.get_args(choice)[1:] == (Ellipsis,):
            return typing.get_args(choice)[0]
    return None


def _words_of(target: Any) -> list[Any]:
    """What may stand in place of a list: null, and words that the annotation names."""
    choices = [one for one in _choices(target) if one is not target and typing.get_origin(one) is typing.Literal]
    return ["null", *(word for choice in choices for word in typing.get_args(choice))]


def _choices(target: Any) -> tuple[Any, ...]:
    """What an annotation allows: the parts of a union, else itself."""
    either = typing.get_origin(target) in (typing.Union, types.UnionType)
    return typing.get_args(target) if either else (target,)


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def _descend(target: Any, parts: list[str], option: str) -> Any:
    """The annotation that a dotted option name leads to; UserError if a part is unknown."""
    for part in parts:
        if typing.get_origin(target) in (typing.Union, types.UnionType):
            target = next((choice for choice in typing.get_args(target) if _is_config(choice)), target)
        hints = typing.get_type_hints(target) if dataclasses.is_dataclass(target) else None
        if hints is not None:
            if part not in hints:
                raise UserError(f"{option}: unknown option '{part}'; one of: {', '.join(hints)}")
            target = hints[part]
        elif typing.get_origin(target) is dict:
            target = typing.get_args(target)[1]
        elif inspect.isclass(target) and inspect.isabstract(target):
            if part != "class_path":
                raise UserError(f"{option}: set the options of a {target.__name__.lower()} in a YAML file")
        else:
            raise UserError(f"{option}: '{part}' is not an option of anything")
    return target


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    words = list(argv)
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            following = words[index + 1] if index + 1 < len(words) else None
            yield name, value or (None if following is None or following.startswith("--") else following)


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


def _is_config(target: Any) -> bool:
    return inspect.isclass(target) and (dataclasses.is_dataclass(target) or inspect.isabstract(target))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where.startswith("--") else where
