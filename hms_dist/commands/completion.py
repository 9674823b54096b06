"""The command `completion`: a script with which a shell completes commands, options, values and recipes."""

import importlib
import typing
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hms_dist.commands.table import COMMANDS
from hms_dist.config.command_line import annotation_of, option_names
from hms_dist.config.help import OWN_OPTIONS
from hms_dist.config.recipes import folder_of, folders, names
from hms_dist.config.types import choices
from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Completion:
    """Print a script with which a shell completes hms-dist: commands, options, values, recipes and files.

    The shell reads the script alone and starts no Python, so completing takes no time. Print it again after an update.
    """

    shell: Literal["bash", "zsh"]
    """Shell of the script."""


def run(command: Completion) -> None:
    """Run the command `completion`. Raises UserError without the package shtab."""
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion: needs shtab; pip install 'hms-dist[completion]'") from error
    parser = ArgumentParser(prog="hms-dist")
    parser.add_argument("--version", action="store_true")
    commands = parser.add_subparsers()
    for name, (module, options, text) in COMMANDS.items():
        cls = getattr(importlib.import_module(module), options)
        own = commands.add_parser(name, help=text, add_help=False)
        for option, annotation in _options(cls):
            words = list(_values(annotation))
            action = own.add_argument(option, choices=words or None, nargs=None if words else "?")
            folder = folder_of(annotation)
            if folder and command.shell == "bash":
                action.complete = {"bash": _RECIPES.format(folder)}  # type: ignore[attr-defined]
            elif not words:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    functions = "\n".join(_recipe_function(folder) for folder in folders())
    print(shtab.complete(parser, command.shell, preamble={"bash": functions}))


_RECIPES = "_hms_dist_recipes_{}"
"""Name of the function that completes recipes of a folder."""


def _recipe_function(folder: str) -> str:
    """A function of bash that completes the recipes of a folder, and files."""
    return f"""{_RECIPES.format(folder)}() {{ compgen -W "{" ".join(names(folder))}" -- "$1"; compgen -f -- "$1"; }}"""


def _options(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the options of a command, nested ones too, with their annotations; `--config` has that of the class."""
    yield from ((f"--{name}", cls if name == "config" else Any) for name in OWN_OPTIONS)
    for option in option_names(cls):
        yield option, annotation_of(cls, option[2:].split("."), option)


def _values(annotation: Any) -> Iterator[str]:
    """Yield the words that a value may be: recipes of its folder, true and false, those of a Literal."""
    for choice in choices(annotation):
        if choice is bool:
            yield from ("true", "false")
        elif typing.get_origin(choice) is Literal:
            yield from map(str, typing.get_args(choice))
        elif folder := folder_of(choice):
            yield from names(folder)
