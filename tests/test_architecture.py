"""docs/architecture.md and CONTRIBUTING.md name files and names that exist."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = ("docs/architecture.md", "CONTRIBUTING.md")
ROOTS = ("hms_dist/", "tests/", "configs/", "docs/", "scripts/", "examples/", "slurm/", ".ci/")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def quoted(page):
    """Texts in backquotes, without those of blocks of code."""
    text = re.sub(r"^```.*?^```", "", (REPOSITORY / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`\n]+)`", text)


@pytest.mark.parametrize("page", PAGES)
def test_every_path_exists(page):
    paths = [word for word in quoted(page) if word.startswith(ROOTS) and not set(word) & set("<* ")]
    links = [(REPOSITORY / page).parent / link for link in LINK.findall((REPOSITORY / page).read_text())]
    assert len(paths) > 10
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
    assert [str(link) for link in links if not link.exists()] == []


def defined(body):
    """Name -> the body of the class, function or variable of that name."""
    found = {}
    for node in body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        for target in targets:
            found[getattr(target, "name", getattr(target, "id", ""))] = getattr(node, "body", [])
    return found


def test_every_name_is_defined_in_the_file_beside_it():
    """`name` (`path`), or `NAME` in `path`, of the architecture page."""
    text = (REPOSITORY / "docs/architecture.md").read_text()
    pairs = re.findall(r"`([A-Za-z_.]+)`(?: \(| in )`(hms_dist/[\w/]+\.py)`", text)
    assert len(pairs) > 8
    for name, path in pairs:
        body = ast.parse((REPOSITORY / path).read_text()).body
        for part in name.split("."):
            assert part in defined(body), f"{name} is not in {path}"
            body = defined(body)[part]
