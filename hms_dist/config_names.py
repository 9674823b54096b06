"""Check every name in a configuration against the dataclasses it fills, before anything is built.

Two ends: an unknown option or class gets an error that lists the valid ones, and no name in a configuration is ever
imported. A class must be a known subclass of what its field declares, and of a path such as `package.module.Class`,
which older files hold, only the last part counts.
"""

import dataclasses
import difflib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hms_dist.config_versions import CLASS_KEY, OPTIONS_KEY, VERSION_KEY, bare_name, completed, split_version
from hms_dist.errors import UserError
from hms_dist.files import check_text

_PARSERS_OWN = ("config", "help", "print_config")
"""Options that every command line has."""


class _Strict(yaml.SafeLoader):
    """Refuses what YAML's readers take without a word: a name twice in one mapping, and 12:00:00 for 43200."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for number, name in enumerate(names):
            if name.value in [earlier.value for earlier in names[:number]]:
                raise yaml.constructor.ConstructorError(None, None, f"'{name.value}' stands twice", name.start_mark)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> Any:
        if ":" in node.value:
            text = f"{node.value} is a number to base 60 in YAML; put it in quotes"
            raise yaml.constructor.ConstructorError(None, None, text, node.start_mark)
        kind = node.tag.rpartition(":")[2]
        return self.construct_yaml_int(node) if kind == "int" else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Strict.add_constructor(f"tag:yaml.org,2002:{_tag}", _Strict.construct_number)


class _Numeric(_Strict):
    """Reads as jsonargparse does: 1e-4 is a number, a date is text."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":float", ":timestamp"))]
        for first, resolvers in _Strict.yaml_implicit_resolvers.items()
    }


class _NumericDumper(yaml.SafeDumper):
    """Writes text in quotes where `_Numeric` would read it as a number."""

    yaml_implicit_resolvers = _Numeric.yaml_implicit_resolvers


_FLOAT = re.compile(
    r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]\d+)?|\.(inf|Inf|INF))$"
    r"|\.(nan|NaN|NAN)$"
)
_Numeric.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


def read_yaml(path: Path, loader: type[yaml.SafeLoader] = _Strict) -> Any:
    """Safe-load one YAML file; UserError if it is missing or not YAML."""
    try:
        return yaml.load(path.read_text(), loader)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot read this configuration file ({error}); check the path") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error


def read_record(path: Path) -> Any:
    """Read a YAML file that a command wrote for later ones. Raises UserError if it is missing or was changed since."""
    value = read_yaml(path)
    check_text(path)
    return value


def yaml_text(value: Any, *, flow: bool = False) -> str:
    """Plain values as YAML that both readers of configurations, ours and the parser's, read alike; `flow`: one line."""
    return yaml.dump(value, Dumper=_NumericDumper, default_flow_style=flow, width=float("inf"), sort_keys=False)


def checked_words(cls: type, argv: Sequence[str]) -> list[str]:
    """Check command-line words (`--config file`, `--a.b value`, `--a.b=value`) against `cls`.

    Returns them with the content of configuration files in place of their names, as `checked` gives it.
    """
    words = list(argv)
    given = [option for option, _, _ in _options(argv)]
    for option, value, place in _options(argv):
        if option in _PARSERS_OWN:
            if option == "config" and value is not None:
                words[place] = _word(option, _checked_file(cls, value), argv[place])
            continue
        target = _descend(cls, option.split("."), f"--{option}", root=cls)
        if given.count(option) > 1 and _item_of(target) is not None:
            raise UserError(f"--{option}: given twice, and the first would be lost; name all behind one --{option}")
        if value is not None:
            node = _parsed(value)
            found = checked(node, target, f"--{option}")
            if found != node:
                words[place] = _word(option, found, argv[place])
    return words


def with_values(cls: type, argv: Sequence[str]) -> list[str]:
    """Checked words as the parser takes them: `--repair` becomes `--repair=true`, `--runs A B` one list of two."""
    return [word for group in _groups(argv) for word in _with_value(cls, group)]


def with_subject(cls: type, argv: Sequence[str]) -> list[str]:
    """Words in which the only option that `cls` cannot do without has its name, also if it was left out."""
    needed = [field.name for field in dataclasses.fields(cls) if _is_needed(field)]
    if len(needed) == 1 and argv and not argv[0].startswith("-"):
        return [f"--{needed[0]}={argv[0]}", *argv[1:]]
    return list(argv)


def checked(node: Any, target: Any, where: str, version: int | None = None) -> Any:
    """The plain value `node` as the parser takes it, checked against the annotation `target`.

    Names of files give way to their content, and paths of classes to their names; options that a file of an older
    format `version` lacks are added. None: not a stored configuration. UserError names what is unknown; `where` is the
    file or option for the message. Wrong types are left to the parser.
    """
    if isinstance(node, str) and node.endswith((".yaml", ".yml")) and _is_config(target):
        path = Path(where).parent / node if not where.startswith("--") else Path(node)
        return _checked_content(read_yaml(path, _Numeric), target, str(path))
    if inspect.isclass(target) and inspect.isabstract(target):
        return _checked_class(node, target, where, version)
    if inspect.isclass(target) and dataclasses.is_dataclass(target):
        hints = typing.get_type_hints(target)
        if node is None:
            return node
        if not isinstance(node, Mapping):
            raise UserError(
                f"{where}: expected options or a .yaml file of them, found {node!r}; one of: {', '.join(hints)}"
            )
        for name in node:
            if name not in hints:
                hint = meant(str(name), list(hints))
                raise UserError(f"{where}: unknown option '{name}'; {hint}one of: {', '.join(hints)}")
        found = {name: checked(item, hints[name], _join(where, str(name)), version) for name, item in node.items()}
        return found if version is None else completed(found, target.__name__, version)
    return _checked_items(node, target, where, version)


def _checked_file(cls: type, path: str) -> Any:
    content = read_yaml(Path(path), _Numeric)
    if not isinstance(content, Mapping):
        found = "nothing" if content is None else " ".join(str(content).split())[:40]
        raise UserError(
            f"{path}: expected options, a line each like 'name: value', found '{found}'; is it another file?"
        )
    return _checked_content(content, cls, path)


def _checked_content(content: Any, target: Any, path: str) -> Any:
    """The content of a configuration file; one with a format version is a stored one."""
    if isinstance(content, Mapping) and VERSION_KEY in content:
        options, version = split_version(content, path)
        return checked(options, target, path, version)
    return checked(content, target, path)


def _word(option: str, value: Any, word: str) -> str:
    """The word in place of `word`, which held the value of `option`: `--option=value`, or the value alone."""
    text = yaml_text(value, flow=True).removesuffix("\n").removesuffix("\n...")
    return f"--{option}={text}" if word.startswith(f"--{option}=") else text


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


def _checked_items(node: Any, target: Any, where: str, version: int | None) -> Any:
    arguments = [a for a in typing.get_args(target) if a not in (type(None), Ellipsis)]
    origin = typing.get_origin(target)
    if isinstance(node, Mapping) and origin is dict:
        return {name: checked(item, arguments[1], _join(where, str(name)), version) for name, item in node.items()}
    if isinstance(node, list) and origin in (list, tuple):
        return [checked(item, arguments[0], where, version) for item in node]
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            if _is_config(argument):
                node = checked(node, argument, where, version)
    return node


def _checked_class(node: Any, base: type, where: str, version: int | None) -> Any:
    name = node.get(CLASS_KEY) if isinstance(node, Mapping) else node
    if name is None:
        return node
    known = {c.__name__: c for c in _subclasses(base) if not inspect.isabstract(c)}
    chosen = known.get(bare_name(name)) if isinstance(name, str) else None
    if chosen is None:
        raise UserError(f"{where}: unknown {base.__name__.lower()} '{name}'; one of: {', '.join(sorted(known))}")
    if not isinstance(node, Mapping):
        return chosen.__name__
    found = {**node, CLASS_KEY: chosen.__name__}
    if node.get(OPTIONS_KEY) or version is not None:
        found[OPTIONS_KEY] = checked(node.get(OPTIONS_KEY) or {}, chosen, where, version)
    return found


def _subclasses(base: type) -> Iterator[type]:
    children: list[type] = base.__subclasses__()
    for child in children:
        yield child
        yield from _subclasses(child)


def meant(given: str, valid: Sequence[str]) -> str:
    """`did you mean x? ` of the valid names that end in the given one, or else are spelt alike; empty if none is."""
    last = given.removeprefix("--")
    near = [name for name in valid if name.endswith(f".{last}")] or difflib.get_close_matches(given, valid, n=1)
    return f"did you mean {' or '.join(near[:3])}? " if near else ""


def _dotted(target: Any, prefix: str = "--", above: tuple[Any, ...] = ()) -> Iterator[str]:
    """Names of all options of a dataclass and of the dataclasses in it: --epochs, --optim, --optim.lr ..."""
    for name, hint in typing.get_type_hints(target).items():
        yield f"{prefix}{name}"
        for choice in _choices(hint):
            if dataclasses.is_dataclass(choice) and choice not in (target, *above):
                yield from _dotted(choice, f"{prefix}{name}.", (target, *above))


def _descend(target: Any, parts: list[str], option: str, root: Any = None) -> Any:
    """The annotation that a dotted option name leads to; UserError if a part is unknown.

    `root`: the class whose options the message may suggest.
    """
    for part in parts:
        if typing.get_origin(target) in (typing.Union, types.UnionType):
            target = next((choice for choice in typing.get_args(target) if _is_config(choice)), target)
        hints = typing.get_type_hints(target) if dataclasses.is_dataclass(target) else None
        if hints is not None:
            if part not in hints:
                hint = "" if root is None else meant(option, list(_dotted(root)))
                raise UserError(f"{option}: unknown option '{part}'; {hint}one of: {', '.join(hints)}")
            target = hints[part]
        elif typing.get_origin(target) is dict:
            target = typing.get_args(target)[1]
        elif inspect.isclass(target) and inspect.isabstract(target):
            if part != "class_path":
                raise UserError(f"{option}: set the options of a {target.__name__.lower()} in a YAML file")
        else:
            raise UserError(f"{option}: '{part}' is not an option of anything")
    return target


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str | None, int]]:
    """Each option with its (first) value, and the place of the word that holds this."""
    words = list(argv)
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            following = words[index + 1] if index + 1 < len(words) else None
            if value:
                yield name, value, index
            elif following is None or following.startswith("--"):
                yield name, None, index
            else:
                yield name, following, index + 1


def _parsed(value: str) -> Any:
    try:
        return yaml.load(value, _Numeric)
    except yaml.YAMLError:
        return value


def _is_needed(field: "dataclasses.Field[Any]") -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _is_config(target: Any) -> bool:
    return inspect.isclass(target) and (dataclasses.is_dataclass(target) or inspect.isabstract(target))


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where.startswith("--") else where
