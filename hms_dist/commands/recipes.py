"""`hms-dist recipes`: the names that `--config` accepts, and the path of a recipe."""

from dataclasses import dataclass

from hms_dist.config.recipes import folders, names, recipe_path
from hms_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """List the recipes that come with this package, or print the path of one, to copy it or to give it to a launcher.

    A recipe of the folder `train` is found by `hms-dist train --config NAME`, one of `render` by `hms-dist render`.
    """

    name: str | None = None
    """FOLDER/NAME, such as train/public_baseline or accelerate/cpu2: print the path of its file. None: list all."""


def run(command: Recipes) -> None:
    """Run the command `recipes`. Raises UserError for an unknown name."""
    if command.name is None:
        print("\n".join(f"{folder}/{name}" for folder in folders() for name in names(folder)))
        return
    folder, slash, name = command.name.partition("/")
    if not slash or folder not in folders():
        raise UserError(
            f"name: expected FOLDER/NAME, such as train/demo, found '{command.name}'; folders: {', '.join(folders())}"
        )
    print(recipe_path(folder, name, "name"))
