"""Recipes of a grid, and how their runs are started."""

import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hms_dist.config.command_line import option_words
from hms_dist.config.recipes import installed
from hms_dist.core.errors import UserError
from hms_dist.core.plugins import plugin_words

SET_BY_THE_GRID = ("shards", "out", "seed", "fold")
"""Options of a run that the grid sets."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A training recipe: configuration files merged in order, and options over them."""

    name: str
    """Name in folders and tables."""
    configs: tuple[Path, ...]
    """Recipes for hms-dist train --config, in order: names such as seed_001, or paths from where the command runs."""
    options: dict[str, Any] = field(default_factory=dict)
    """Further options by dotted names, such as {model.name: efficientnet_b4}."""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ValueError(f"recipes.name: expected a name that can be part of a folder's, found '{self.name}'")
        if not self.configs:
            raise ValueError(f"recipes.configs: recipe '{self.name}' names no configuration file; name at least one")
        for option in SET_BY_THE_GRID:
            if option in self.options:
                raise ValueError(f"recipes.options: '{option}' of recipe '{self.name}' is the grid's to set; remove it")

    @property
    def words(self) -> list[str]:
        """Command-line words for hms-dist train."""
        configs = [word for path in self.configs for word in ("--config", str(path))]
        return [*configs, *option_words(self.options)]


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """How training runs are started."""

    words: tuple[str, ...] = ()
    """Launcher and its options, such as [accelerate, launch, --num_processes, 4]. Empty: this Python, one process.
    {configs} is the folder of recipes: [accelerate, launch, --config_file, "{configs}/accelerate/cpu2.yaml"]."""
    program: Path | None = None
    """Training program that takes the same options; relative to the working directory. None: hms-dist train."""

    def command(self, words: list[str]) -> list[str]:
        """Command line of a run with these options and the plug-ins of this process.

        Raises UserError if launcher or program is missing.
        """
        if self.program is not None and not self.program.is_file():
            raise UserError(
                f"launch.program: no file {self.program}; check the path, or leave it out for hms-dist train"
            )
        if self.words and shutil.which(self.words[0]) is None:
            raise UserError(
                f"launch.words: no program '{self.words[0]}' on this machine; install it, or correct the name"
            )
        launcher = [installed(word) for word in self.words] or [sys.executable]
        program = ["-m", "hms_dist", "train"] if self.program is None else [str(self.program)]
        return [*launcher, *program, *words, *plugin_words()]
