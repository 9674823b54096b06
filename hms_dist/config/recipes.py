"""Recipes: the configuration files of `configs/`, which are installed with the package and found by their names.

A class of options whose files have a folder there names it as its attribute `RECIPE_FOLDER`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError, suggestion

_PACKAGE = Path(__file__).parents[1]
ROOT = _PACKAGE / "configs" if (_PACKAGE / "configs").is_dir() else _PACKAGE.parent / "configs"
"""Part of an installed package; in a checkout, also one installed with `pip install -e`, the folder beside it."""
PLACE = "{configs}"
"""Placeholder for ROOT in the words of a launcher."""


def folder_of(target: Any) -> str | None:
    """The folder of recipes for a class of options; None if it has none."""
    return getattr(target, "RECIPE_FOLDER", None)


def is_name(text: str) -> bool:
    """Whether a text is a recipe's name: paths have a slash, or end in .yaml or .yml."""
    return "/" not in text and not text.endswith((".yaml", ".yml"))


def folders() -> list[str]:
    """Names of the folders of recipes."""
    return sorted(path.name for path in ROOT.iterdir() if path.is_dir())


def names(folder: str) -> list[str]:
    """Names of the recipes in a folder."""
    return sorted(path.stem for path in (ROOT / folder).glob("*.yaml"))


def recipe_path(folder: str, name: str, where: str) -> Path:
    """The file of a recipe. Raises UserError, which begins with `where` and lists the names, if there is none."""
    valid = names(folder)
    if name not in valid:
        raise UserError(
            f"{where}: no recipe '{name[:100]}' in configs/{folder}; {suggestion(name, valid)}"
            f"one of: {', '.join(valid)}; a path has a slash or ends in .yaml"
        )
    return ROOT / folder / f"{name}.yaml"


def recipes_called(kinds: Sequence[str]) -> dict[str, list[Path]]:
    """The files of these folders by the names of their recipes."""
    found: dict[str, list[Path]] = {}
    for folder in kinds:
        for name in names(folder):
            found.setdefault(name, []).append(ROOT / folder / f"{name}.yaml")
    return found


def installed(word: str) -> str:
    """A word with the folder of recipes instead of `{configs}`."""
    return word.replace(PLACE, str(ROOT))


def portable(path: Path) -> str:
    """A path for comparisons: a recipe has the same one wherever the package is installed."""
    return str(path.relative_to(ROOT.parent)) if path.is_relative_to(ROOT) else str(path)
