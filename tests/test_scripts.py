"""Scripts and benches start, and the commands that the documentation prints are among theirs."""

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPTS = sorted((REPOSITORY / "scripts").rglob("*.py"))
RUNNABLE = [path for path in SCRIPTS if "__main__" in path.read_text()]
SHELL = sorted((REPOSITORY / "scripts").rglob("*.sh"))
PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
COMMAND = re.compile(r"python (scripts/[\w/]+\.py)([^`#|&\n]*)")
MENTION = re.compile(r"\bscripts/[\w/]+\.(?:py|sh|txt)\b")


def name_of(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


COMMANDS = {
    f"{page.relative_to(REPOSITORY)}: {script}{words.rstrip()}": (script, words)
    for page in PAGES
    for script, words in COMMAND.findall(page.read_text())
}


@pytest.fixture
def beside(monkeypatch) -> Iterator[Callable[[Path], None]]:
    """Makes a script find the modules beside it, as when Python runs it; they are forgotten afterwards."""
    known = set(sys.modules)
    yield lambda path: monkeypatch.syspath_prepend(path.parent)
    for name in {path.stem for path in SCRIPTS} - known:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
def test_help(path, beside, monkeypatch, capsys):
    beside(path)
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: {path.name}")


@pytest.mark.parametrize("path", [path for path in SCRIPTS if path not in RUNNABLE], ids=name_of)
def test_a_module_that_only_scripts_use_can_be_imported(path, beside):
    beside(path)
    importlib.import_module(path.stem)


@pytest.mark.parametrize("path", SHELL, ids=name_of)
def test_help_of_a_shell_script(path):
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    done = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"usage: {name_of(path)}")


def test_scripts_that_the_documentation_names_exist():
    lacking = [
        f"{name_of(page)}: {name}"
        for page in PAGES
        for name in MENTION.findall(page.read_text())
        if not (REPOSITORY / name).exists()
    ]
    assert not lacking


def test_every_bench_is_documented():
    started_by_others = {
        f"scripts/bench/{name}.py" for name in ("first_use", "full_size", "loader_process", "scaling_norms")
    }
    benches = {name_of(path) for path in RUNNABLE if path.parent.name == "bench"}
    assert {script for script, _ in COMMANDS.values()} >= benches - started_by_others


@pytest.mark.parametrize(("script", "words"), COMMANDS.values(), ids=COMMANDS)
def test_a_printed_command_is_one_of_its_script(script, words, beside):
    path = REPOSITORY / script
    beside(path)
    parser: ArgumentParser = importlib.import_module(path.stem).parser()
    parser.parse_args(shlex.split(words))
