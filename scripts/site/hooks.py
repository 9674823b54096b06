"""Hooks of mkdocs.yml: pages that are generated at build time, and links to files outside of docs/.

Generated are the options of every command and class, the recipes, the examples, and pages that live elsewhere in the
repository. In docs/ all links are relative to the repository, so that they also work where the files are read there.
"""

import logging
import posixpath
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.append(str(Path(__file__).parent))

from options import class_page, command_pages

LOG = logging.getLogger("mkdocs.hooks.site")
REPOSITORY = Path(__file__).parents[2]
MOVED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "shards/README.md": "shard_sets.md",
}
"""Page outside of docs/ -> its place in the site."""
ELSEWHERE = {
    **MOVED, "README.md": "index.md", "configs": "recipes/index.md", "examples": "examples.md",
    "slurm/README.md": "clusters.md", "LICENSE": "index.md",
}  # fmt: skip
"""Path in the repository -> page that a link to it leads to."""
LINK = re.compile(r"(?<!!)\[([^]\[]*(?:\[[^]]*\][^]\[]*)*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```|~~~.*?^~~~)", re.M | re.S)
RECIPE_FOLDERS = {
    "render": "panels to draw", "canvas": "arrangements of panels as a model's input", "train": "training runs",
    "augment": "augmentations", "grid": "recipes, seeds and folds to train", "search": "hyperparameter searches",
    "pipeline": "chains of commands", "slurm": "descriptions of clusters", "accelerate": "launcher settings",
}  # fmt: skip


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace the entry `commands` of the navigation by a page per command, and `recipes` by one per folder.

    Pages of docs/ that the navigation lacks are listed at its end.
    """
    pages = [f"commands/{name}.md" for name, _, _ in command_pages()]
    recipes = [f"recipes/{folder}.md" for folder in RECIPE_FOLDERS]
    config.nav = _expanded(
        config.nav, {"commands": ["commands/index.md", *pages], "recipes": ["recipes/index.md", *recipes]}
    )
    listed = set(_entries(config.nav)) | set(MOVED.values())
    docs = Path(config.docs_dir)
    if others := sorted({path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - listed):
        config.nav.append({"More": others})
    return config


def _entries(nav: Any) -> Iterator[str]:
    """Pages of a navigation."""
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        yield from _entries(entry)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and one for each other file that a page links to."""
    for uri, text in {**_generated(), **_linked_files(config)}.items():
        files.append(File.generated(config, uri, content=text))
    return files


def _linked_files(config: MkDocsConfig) -> dict[str, str]:
    """Place in the site -> Markdown of other files that pages link to."""
    origins = [*Path(config.docs_dir).rglob("*.md"), *(REPOSITORY / path for path in MOVED)]
    pages = {}
    for origin in origins:
        for link in LINK.finditer(FENCE.sub("", origin.read_text())):
            target = origin.parent / link[2]
            if ":" not in link[2] and target.resolve().is_relative_to(REPOSITORY):
                path = target.resolve().relative_to(REPOSITORY).as_posix()
                place, _ = _place(path)
                if place.startswith("source/"):
                    pages[place] = f"# {path}\n\n````text\n{(REPOSITORY / path).read_text().rstrip()}\n````\n"
    return pages


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links that leave docs/ to the pages of the site."""
    uri = page.file.src_uri
    origin = next((path for path, moved in MOVED.items() if moved == uri), f"docs/{uri}")
    parts = FENCE.split(markdown)
    return "".join(
        part if FENCE.match(part) else LINK.sub(lambda link: _led(link, origin, uri), part) for part in parts
    )


def _led(link: "re.Match[str]", origin: str, uri: str) -> str:
    text, target, anchor = link[1], link[2], link[3] or ""
    if ":" in target:
        return link[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), target))
    place, own_anchor = _place(path)
    if not place:
        LOG.warning("%s: the link to %s leads to nothing in the site", origin, target)
        return link[0]
    return f"[{text}]({posixpath.relpath(place, posixpath.dirname(uri) or '.')}{anchor or own_anchor})"


def _place(path: str) -> tuple[str, str]:
    """Page of the site, and anchor in it, for a path in the repository. ("", ""): none."""
    if path in ELSEWHERE:
        return ELSEWHERE[path], ""
    first, _, rest = path.partition("/")
    if first == "docs":
        return rest, ""
    if first == "configs" and (REPOSITORY / path).is_file():
        return f"recipes/{posixpath.dirname(rest)}.md", f"#{Path(path).stem}"
    if not (REPOSITORY / path).is_file():
        return "", ""
    return ("examples.md", f"#{Path(path).stem}") if first == "examples" else (f"source/{path}.md", "")


def _generated() -> dict[str, str]:
    """Place in the site -> Markdown."""
    pages = {place: (REPOSITORY / path).read_text() for path, place in MOVED.items()}
    commands = list(command_pages())
    pages |= {f"commands/{name}.md": text for name, _, text in commands}
    table = "\n".join(f"| [{name}]({name}.md) | {line} |" for name, line, _ in commands)
    pages["commands/index.md"] = f"# Commands\n\n{COMMANDS}\n\n| command | purpose |\n|---|---|\n{table}\n"
    pages["reference/classes.md"] = class_page()
    pages["reference/python.md"] = "\n\n".join(
        [API, *(f"## {title}\n\n{_documented(names)}" for title, names in API_PARTS.items())]
    )
    pages["examples.md"] = _listing(
        "# Examples\n\nScripts in `examples/`, which use the [Python API](api.md).",
        sorted((REPOSITORY / "examples").glob("*.py")),
        "python",
    )
    for folder, purpose in RECIPE_FOLDERS.items():
        files = sorted((REPOSITORY / "configs" / folder).glob("*.yaml"))
        pages[f"recipes/{folder}.md"] = _listing(
            f"# Recipes: {folder}\n\nFiles of `configs/{folder}/`: {purpose}.", files, "yaml"
        )
    rows = "\n".join(f"| [{folder}]({folder}.md) | {purpose} |" for folder, purpose in RECIPE_FOLDERS.items())
    pages["recipes/index.md"] = f"# Recipes\n\n{RECIPES}\n\n| folder | content |\n|---|---|\n{rows}\n"
    return pages


API = """# API reference

Generated from the docstrings. [Python API](../api.md) explains the parts with examples. Functions are called as
`hms_dist.NAME`; classes are returned by them, or are interfaces of [plug-ins](../plugins.md)."""
API_PARTS = {
    "Functions": [
        "api.recording.read_recording", "api.recording.read_clip", "api.recording.draw", "api.shards.open_shards",
        "train.start.train", "api.run_model.load_run", "api.tables.score", "api.tables.ensemble",
        "core.plugins.load_plugins",
    ],
    "Classes": [
        "recordings.reader.Recording", "recordings.audio.AudioRecording",
        "api.shards.Shards", "api.shards.Sample", "api.shards.Batch",
        "api.run_model.RunModel", "shards.schema.PanelSpec", "core.errors.UserError", "core.errors.JobError",
    ],
    "Interfaces of plug-ins": [
        "panels.panel.Panel", "panels.panel.Window", "canvas.augment.augmentation.Change",
        "canvas.augment.augmentation.Mix", "model.loss.Loss", "model.loss.register_loss",
        "stream.rows.selections.Candidates", "stream.rows.selections.register_selection",
    ],
}  # fmt: skip
"""Heading -> objects, below the package."""
COMMANDS = """All are called as `hms-dist <command> --option value ...`. `--config` reads options from a recipe or a
YAML file. Several are merged in order; options on the command line override them. A dot leads into a group of options:
`--optim.lr 1e-3` is `optim: {lr: 1e-3}` in YAML. `--plugins MODULE ...` loads [classes of your own](../plugins.md) with
any command. The exit code is 0, or 2 for an error in the input or options, or 1 for a job that failed."""
RECIPES = """A recipe is a YAML file of options that is installed with the package. `--config` finds it by name:
`hms-dist train --config public_baseline` reads `configs/train/public_baseline.yaml`. A value with a slash, or one that
ends in `.yaml`, is a path to a file of your own. `hms-dist recipes` lists the names; `hms-dist recipes
train/public_baseline` prints the path of one."""


def _documented(names: list[str]) -> str:
    """Directives of mkdocstrings for objects of the package."""
    return "\n\n".join(f"::: hms_dist.{name}" for name in names)


def _listing(head: str, files: list[Path], language: str) -> str:
    parts = [head]
    parts += [f"## {file.stem} {{ #{file.stem} }}\n\n```{language}\n{file.read_text().rstrip()}\n```" for file in files]
    return "\n\n".join(parts)


def _expanded(nav: Any, groups: dict[str, list[str]]) -> Any:
    """The navigation with each name of `groups` replaced by its pages."""
    if isinstance(nav, list):
        return [_expanded(entry, groups) for entry in nav]
    if isinstance(nav, dict):
        return {
            title: groups.get(entry, _expanded(entry, groups)) if isinstance(entry, str) else _expanded(entry, groups)
            for title, entry in nav.items()
        }
    return nav
