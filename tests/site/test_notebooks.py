"""Notebooks run, and give the outputs that their pages have, up to numbers and log lines."""

import importlib
import os
import re
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
MARKS = {"your_edf": pytest.mark.slow}
"""The shortest runs in make test-slow, the others in make test-long."""
SOURCES = [
    pytest.param(path, id=path.stem, marks=MARKS.get(path.stem, pytest.mark.long))
    for path in sorted((REPOSITORY / "notebooks").glob("*.py"))
    if path.stem != "kaggle_hms_offline"  # tests/test_kaggle.py runs it
]


@pytest.fixture
def notebook(monkeypatch):
    """The script that writes pages, and its kernels' environment: this checkout and this interpreter's programs."""
    monkeypatch.syspath_prepend(REPOSITORY / "scripts/site")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield importlib.import_module("notebook")
    sys.modules.pop("notebook")


def outline(page: str) -> str:
    """A page without the text of its outputs, and with every number of its tables as 0."""
    page = re.sub(r"^```\{ \.text \.output \}\n.*?\n```$", "OUTPUT", page, flags=re.M | re.S)
    return re.sub(r"<td>[\d.-]+</td>", "<td>0</td>", page)


@pytest.mark.parametrize("source", SOURCES)
def test_it_runs_and_gives_what_its_page_shows(source, notebook, tmp_path):
    page = (REPOSITORY / f"docs/{source.stem}.md").read_text()
    cells = notebook.executed(source, tmp_path)
    assert outline(notebook.page(source, cells, None)) == outline(page)
