"""Reference pages of the options of commands and of the classes that configurations name, from their dataclasses."""

import dataclasses
import html
import importlib
import inspect
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from docstring_parser import parse_from_object

from hms_dist.commands.table import COMMANDS
from hms_dist.config.load import to_dict
from hms_dist.config.safe_yaml import yaml_text
from hms_dist.config.types import choices, expected

UNITS = {
    "s": "seconds", "hz": "hertz", "uv": "µV", "db": "decibels", "gb": "gigabytes", "mb": "megabytes",
    "share": "share, 0 to 1", "probability": "share, 0 to 1", "rows": "rows", "epochs": "epochs", "epoch": "epochs",
    "votes": "votes", "workers": "processes", "threads": "threads",
}  # fmt: skip
"""Last part of an option's name -> unit, where the name has one."""
CHOSEN = {
    "Panel": ("panels", "panels.Panel", "Panels", "a render recipe"),
    "Normaliser": ("canvas.normalise", "canvas.normalise.normaliser.Normaliser", "Normalisations", "a canvas"),
    "Augmentation": ("canvas.augment", "canvas.augment.augmentation.Augmentation", "Augmentations", "`augment`"),
}  # fmt: skip
"""Base class -> package that imports its classes, class, heading, the configuration that names them."""


def command_pages() -> Iterator[tuple[str, str, str]]:
    """Name, one-line help and Markdown page of every command."""
    for name, (module, options, line) in COMMANDS.items():
        cls = getattr(importlib.import_module(module), options)
        yield name, line, f"# hms-dist {name}\n\n{_text(cls.__doc__ or '')}\n\n{_options(cls, 2, 'option', '--')}"


def class_page() -> str:
    """Markdown page of the classes that configurations name by `class_path`."""
    parts = ["# Panels, normalisations, augmentations", CLASSES]
    for module, path, heading, where in CHOSEN.values():
        importlib.import_module(f"hms_dist.{module}")
        package, _, name = f"hms_dist.{path}".rpartition(".")
        base = getattr(importlib.import_module(package), name)
        parts.append(f"## {heading}\n\nNamed in {where}.")
        for cls in sorted(_leaves(base), key=lambda cls: cls.__name__):
            parts.append(
                f"### {cls.__name__}\n\n{_text(cls.__doc__ or '')}\n\n{_options(cls, 4, cls.__name__.lower())}"
            )
    return "\n\n".join(parts)


CLASSES = """A configuration names one of these classes by `class_path` and gives its options as `init_args`:

```yaml
panels:
  traces: {class_path: Traces, init_args: {scale_uv: 160}}
```

An option that is left out has its default. Classes of your own are [plug-ins](../plugins.md)."""


def _leaves(base: type) -> Iterator[type]:
    """Classes of this package derived from `base` that can be named in a configuration."""
    derived: list[type] = base.__subclasses__()
    for cls in derived:
        yield from _leaves(cls)
        if dataclasses.is_dataclass(cls) and not cls.__subclasses__() and cls.__module__.startswith("hms_dist."):
            yield cls


def _options(cls: type, level: int, scope: str, dashes: str = "") -> str:
    """Options of a class, then a section of this level for each group of options. `scope`: first part of anchors."""
    parts = [_definitions(cls, "", scope, dashes)]
    for option, hint, inner in _groups(cls):
        each = "" if inner == _dataclass(hint) else ", of each"
        heading = f"{'#' * level} {option}{each} {{ #{_anchor(scope, option)} }}"
        parts += [heading, _text(inner.__doc__ or ""), _definitions(inner, f"{option}.", scope, dashes)]
    return "\n\n".join(parts)


def _groups(cls: type, prefix: str = "", above: tuple[type, ...] = ()) -> Iterator[tuple[str, Any, type]]:
    """Option, annotation and class of every group of options below a class, nested ones after their parent."""
    for name, hint in _hints(cls).items():
        inner = _dataclass(hint) or _item(hint)
        if inner is not None and inner not in (cls, *above):
            yield f"{prefix}{name}", hint, inner
            yield from _groups(inner, f"{prefix}{name}.", (cls, *above))


def _definitions(cls: type, prefix: str, scope: str, dashes: str) -> str:
    """A definition list of the options of one class."""
    docs, hints, lines = _docs(cls), _hints(cls), []
    for field in dataclasses.fields(cls):
        option = f"{prefix}{field.name}"
        anchor, hint = _anchor(scope, option), hints[field.name]
        is_group = (_dataclass(hint) or _item(hint)) is not None
        name = f"`{dashes}{option}`" if is_group else f"[`{dashes}{option}`](#{anchor}){{ #{anchor} }}"
        facts = [_type(hint, anchor), *_unit(field.name, hint), _default(field)]
        lines.append(f"{name} · {' · '.join(facts)}\n:   {_text(docs.get(field.name, ''), '    ')}\n")
    return "\n".join(lines) if lines else "It has no options."


def _anchor(scope: str, option: str) -> str:
    return f"{scope}-{option.replace('.', '-')}"


def _type(hint: Any, anchor: str) -> str:
    """The values of an option; a group of options, or a class to choose, is a link."""
    target = f"#{anchor}" if _dataclass(hint) or _item(hint) else None
    for base in (base for choice in choices(_inner(hint)) if isinstance(choice, type) for base in choice.__mro__):
        if target is None and base.__name__ in CHOSEN:
            target = f"../reference/classes.md#{CHOSEN[base.__name__][2].lower()}"
    words = _text(expected(hint))
    return re.sub(r"\boptions\b", f"[options]({target})", words) if target else words


def _unit(name: str, hint: Any) -> list[str]:
    numbers = [choice for choice in choices(_inner(hint)) if choice in (int, float)]
    unit = UNITS.get(name.rsplit("_", 1)[-1])
    return [unit] if numbers and unit else []


def _default(field: "dataclasses.Field[Any]") -> str:
    make: Any = field.default_factory
    if field.default is dataclasses.MISSING and make is dataclasses.MISSING:
        return "**required**"
    if dataclasses.is_dataclass(make):
        return "below"
    value = make() if field.default is dataclasses.MISSING else field.default
    text = yaml_text(to_dict(value), flow=True).removesuffix("\n").removesuffix("\n...")
    return f"default `{' '.join(text.split())}`"


def _inner(hint: Any) -> Any:
    """The annotation of the items of a list or mapping; of anything else, itself."""
    for choice in choices(hint):
        arguments = typing.get_args(choice)
        if arguments and typing.get_origin(choice) is not Literal:
            return arguments[-2] if arguments[-1] is Ellipsis else arguments[-1]
    return hint


def _dataclass(hint: Any) -> Any:
    """The dataclass of a group of options. None: an annotation of something else, or of a class to choose."""
    found = (choice for choice in choices(hint) if dataclasses.is_dataclass(choice))
    return next((choice for choice in found if not inspect.isabstract(choice)), None)


def _item(hint: Any) -> Any:
    """The dataclass of the items of a list or mapping, if they have one."""
    inner = _inner(hint)
    return None if inner is hint else _dataclass(inner)


def _hints(cls: type) -> Mapping[str, Any]:
    return {name: hint for name, hint in typing.get_type_hints(cls).items() if name in _field_names(cls)}


def _field_names(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


def _docs(cls: type) -> dict[str, str]:
    """Option -> its docstring, of the class and of those it is derived from."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if dataclasses.is_dataclass(base):
            found |= {part.arg_name: part.description or "" for part in parse_from_object(base).params}
    return found


def _text(text: str, indent: str = "") -> str:
    """Plain text of a docstring as Markdown: its paragraphs, with HTML and Markdown escaped.

    `indent`: of the paragraphs after the first.
    """
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip())]
    return f"\n\n{indent}".join(map(_escaped, paragraphs))


def _escaped(text: str) -> str:
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else html.escape(part, quote=False).replace("*", r"\*") for part in parts
    )
