"""Pages and notebooks of the documentation: printed commands and code are valid, and notebooks are their pages."""

import ast
import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from hms_dist.commands.table import COMMANDS, command_of
from hms_dist.config.command_line import checked_words, with_subject
from hms_dist.config.load import load
from hms_dist.train.settings import TrainConfig

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.py"))
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "shards/README.md", "slurm/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
README_LINES = 120
WITHOUT_PAGE = ("kaggle_hms_offline",)
"""Notebooks for another machine; tests/test_kaggle.py runs this one."""
BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.M | re.S)
INDENTED = re.compile(r"(?<=\n\n)(?: {4}(?! ).*\n(?: {4}.*\n)*)")
CALL = re.compile(r"(?:^|[;|&(] ?|do |then |= ?)\W*(?:[A-Z_]+=\S+ )*(?:hms-dist|.*-m (?:-- )?hms_dist) (.+)")
REST = re.compile(r" #| > | \| |;| &(?: |$)")
"""End of a command in its line."""
VALUES = {
    "RECIPE": "public_baseline",
    "NUMBER": "0",
    "GRID.yaml": "seed_003",
    " mine.yaml": " ./mine.yaml",
    "$job": "train",
}
"""Words that a reader replaces -> value for the test."""


def blocks(text: str, *languages: str) -> list[str]:
    """Fenced code of a page in one of `languages`; "" is code without one."""
    return [code for _, language, code in BLOCK.findall(text) if language in languages]


def printed(text: str) -> Iterator[tuple[str, bool]]:
    """Calls of hms-dist on a page, without their launcher; whether they are complete, or mentioned in a sentence."""
    prose = BLOCK.sub("", text)
    shell = "\n".join([*blocks(text, "", "sh", "bash"), *INDENTED.findall(prose)])
    for line in re.sub(r"\\\n\s*", "", shell).splitlines():
        if found := CALL.search(line.strip()):
            yield REST.split(found[1])[0].strip(' "'), "..." not in line
    for command in re.findall(r"`hms-dist ([^`]+)`", prose):
        yield command, False


def words_of(command: str) -> list[str]:
    """Words of a command; variables and arithmetic of the shell become a number."""
    for word, value in VALUES.items():
        command = command.replace(word, value)
    command = re.sub(r"\$\(\([^)]*\)\)|\$\([^)]*\)|\$\{?\w+\}?", "0", re.sub(r"[\[\]]", "", command))
    return [word for word in shlex.split(command) if word not in ("...", "…")]


def text_of(path: Path) -> str:
    """Text of a page; of a notebook, its commands as indented code."""
    text = path.read_text()
    return (
        re.sub(r"^# (?:!(.*))?", lambda found: f"\n\n    {found[1]}\n" if found[1] else "", text, flags=re.M)
        if path.suffix == ".py"
        else text
    )


COMMANDS_PRINTED = sorted({command for path in [*PAGES, *NOTEBOOKS] for command in printed(text_of(path))})


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory) -> Path:
    """A folder with the files of options that pages ask the reader to write."""
    folder = tmp_path_factory.mktemp("reader")
    cluster = blocks((REPOSITORY / "docs/clusters.md").read_text(), "yaml")[0]
    (folder / "configs/slurm").mkdir(parents=True)
    (folder / "configs/slurm/mine.yaml").write_text(cluster)
    for name in ("canvas", "slurm"):
        shutil.copytree(REPOSITORY / "configs" / name, folder / "configs" / name, dirs_exist_ok=True)
    shutil.copy(REPOSITORY / "configs/canvas/demo.yaml", folder / "configs/canvas/mine.yaml")
    shutil.copytree(REPOSITORY / "configs/augment", folder / "configs/augment")
    for source in NOTEBOOKS:
        for name, text in re.findall(r'(\w+) = """\n(.*?)"""', source.read_text(), re.S):
            if name == "recipe":
                (folder / f"{'tutorial' if source.stem == 'tutorial' else 'small'}.yaml").write_text(text)
                (folder / "canvas.yaml").write_text(yaml.safe_dump(yaml.safe_load(text)["canvas"]))
    plugins = (REPOSITORY / "docs/plugins.md").read_text()
    for code in blocks(plugins, "python"):
        (folder / code.partition("\n")[0].removeprefix("# ")).write_text(code)
    (folder / "mine.yaml").write_text("panels: {traces: {class_path: Traces}}\n")
    return folder


def test_commands_are_found():
    assert len(COMMANDS_PRINTED) > 80


@pytest.mark.parametrize(("command", "whole"), COMMANDS_PRINTED)
def test_a_printed_command_has_valid_options(command, whole, sandbox, monkeypatch):
    monkeypatch.chdir(sandbox)
    name, *words = words_of(command)
    if name.startswith(("<", "--")) or {"--help", "--help_all", "--plugins"} & {*words}:
        return
    if whole:
        command_of(name, words)
        return
    module, options, _ = COMMANDS[name]
    cls = getattr(importlib.import_module(module), options)
    given = with_subject(cls, words)
    checked_words(cls, given[:-1] if given[-1:] == ["--config"] else given)


def test_options_that_a_sentence_names_exist(monkeypatch):
    """Options in code within sentences; pages that are left out have options of other programs, or wrong ones."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts/site")
    pages = "".join(text for _, _, text in importlib.import_module("options").command_pages())
    known = {*re.findall(r"`--([\w.]+)`", pages), "config", "plugins", "help", "help_all", "print_config"}
    unknown = [
        f"{path.name}: {code}"
        for path in PAGES
        if path.name not in ("clusters.md", "kaggle.md", "errors.md", "CONTRIBUTING.md")
        for code in re.findall(r"`(--[^`]+)`", BLOCK.sub("", path.read_text()))
        for name in re.findall(r"(?:^| )--([\w.]+)", code)
        if name not in known
    ]
    assert unknown == []
    sys.modules.pop("options")


def test_printed_targets_and_tests_exist():
    """`make NAME`, and the files of `pytest FILES`."""
    text = "\n".join(path.read_text() for path in PAGES)
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M))
    assert targets >= {"demo", "docs", "setup", "test"}
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.M))
    files = {file for words in re.findall(r"pytest ([^`|\n]+)", text) for file in re.findall(r"tests/[\w./-]+", words)}
    assert len(files) > 15
    assert [file for file in sorted(files) if not (REPOSITORY / file).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_code_of_a_page_is_valid(path):
    text = path.read_text()
    for code in blocks(text, "python"):
        lines = [line.lstrip("!") if not line.startswith("!") else f"# {line}" for line in code.splitlines()]
        ast.parse("\n".join(lines))
    for code in blocks(text, "yaml"):
        list(yaml.safe_load_all(code))


def test_the_stages_of_the_concept_are_those_of_a_run(tmp_path):
    (code,) = blocks((REPOSITORY / "docs/concepts/stage.md").read_text(), "yaml")
    (tmp_path / "stages.yaml").write_text(code)
    words = ["--config", "public_baseline", "--config", str(tmp_path / "stages.yaml"), "--shards", "s", "--out", "o"]
    first, second = load(TrainConfig, words).stages
    assert (first.epochs, second.selection.min_votes) == (16, 8)


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= README_LINES


@pytest.mark.parametrize(
    "source", [path for path in NOTEBOOKS if path.stem not in WITHOUT_PAGE], ids=lambda path: path.stem
)
def test_a_notebook_is_its_page(source, monkeypatch):
    """Text and code of each cell are on the page, in their order."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts/site")
    notebook = importlib.import_module("notebook")
    page = (REPOSITORY / f"docs/{source.stem}.md").read_text()
    place = 0
    for cell in notebook.jupytext.read(source).cells:
        text = notebook.source_text(cell)
        place = page.find(text, place)
        assert place >= 0, f"docs/{source.stem}.md lacks a cell; write it again with scripts/site/notebook.py: {text}"
        place += len(text)
    sys.modules.pop("notebook")
