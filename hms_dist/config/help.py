"""Help that fits a screen: a line for each option, groups of options by their names."""

import shutil
import textwrap
from argparse import SUPPRESS, Action, ArgumentParser
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

OWN_OPTIONS = ("config", "help", "help_all", "print_config")
"""Options of every command line."""
_NAME_WIDTH = 20
_SIZE = (100, 50)
"""Columns and lines of an unknown terminal."""
_WIDEST = 120


class ShortHelp(Action):
    """Print the short help of a parser, and exit. `--help_all` is the parser's own help.

    `needed`: destinations of the required options; the parser forgets them while it parses.
    """

    def __init__(self, option_strings: list[str], dest: str, needed: Collection[str], **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=SUPPRESS, help="Show a line for each option and exit.")
        self._needed = needed

    def __call__(self, parser: ArgumentParser, *_: Any) -> None:
        """Print and exit."""
        print(short_help(parser, self._needed))
        parser.exit()


def short_help(parser: ArgumentParser, needed: Collection[str]) -> str:
    """Usage with the options `needed`, the description, and a line for each option or group of options."""
    width = min(shutil.get_terminal_size(_SIZE).columns, _WIDEST)
    groups: dict[str, list[Action]] = {}
    for action in parser._actions:
        name = action.dest.partition(".")[0]
        if name not in OWN_OPTIONS and action.help != SUPPRESS and not action.dest.endswith(".help"):
            groups.setdefault(name, []).append(action)
    required = [f"--{name} {name.upper()}" for name in groups if name in needed]
    usage = ["usage:", parser.prog, "[--config NAME]", *required, "[--option VALUE ...]"]
    paragraphs = [" ".join(usage), "", *(parser.description or "").split("\n\n")]
    return "\n".join(
        [
            *(line for text in paragraphs for line in textwrap.wrap(text, width, break_on_hyphens=False) or [""]),
            "",
            *(line for name in needed if name in groups for line in _lines(groups[name], width, is_needed=True)),
            *(line for name in groups if name not in needed for line in _lines(groups[name], width)),
            "",
            f"{parser.prog} --help_all explains each option in full, with its unit, values and default.",
        ]
    )


def _lines(group: list[Action], width: int, *, is_needed: bool = False) -> Iterator[str]:
    first, *parts = group
    name, end = f"--{first.dest}", ""
    if parts:
        name += ".*"
        text = ", ".join(part.dest.partition(".")[2] for part in parts)
    else:
        text = " ".join((first.help or "").split()).partition(". ")[0].removesuffix(".")
        end = " (required)" if is_needed else _default(first.default)
    room = width - max(_NAME_WIDTH, len(name)) - 4 - len(end)
    yield f"  {name:<{_NAME_WIDTH}}  {textwrap.shorten(text, room, placeholder='...')}{end}"


def _default(value: Any) -> str:
    """A number, word or path in parentheses. The texts of options explain null; longer values are for `--help_all`."""
    if value == SUPPRESS or not isinstance(value, str | int | float | Path):
        return ""
    return f" ({str(value).lower() if isinstance(value, bool) else value})"
