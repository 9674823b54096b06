"""scripts/mutations.py on a package of one function: mutations caught and missed by its test, and resuming after a
stop."""

import json
import subprocess
import sys
import textwrap

import pytest

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from mutations import Room, run
rooms = {"tiny": Room(code=("tiny/*.py",), tests=("tests",))}
print(run(Path(sys.argv[2]), rooms, 1, int(sys.argv[3]), Path(sys.argv[2]) / "out.jsonl", 60))
"""


@pytest.fixture
def tiny(tmp_path):
    """A checkout whose test holds the sum, and neither the axis nor the check."""
    files = {
        "tiny/__init__.py": "",
        "tiny/sums.py": """
            def total(numbers, *, axis):
                if not len(numbers):
                    raise ValueError("empty")
                rest = (numbers[-1]  # of two
                        + numbers[0])
                return rest, dict(axis=0)
            """,
        "tests/test_sums.py": """
            from tiny.sums import total


            def test_the_sum():
                assert total([1, 2], axis=None)[0] == 3
            """,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(textwrap.dedent(text).lstrip())
    for words in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def tried(tiny, repository):
    """Runs the tool for so many mutations; its table and the lines of its file."""

    def run(number):
        command = [sys.executable, "-c", RUN, str(repository / "scripts"), str(tiny), str(number)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        return ended.stdout, [json.loads(line) for line in (tiny / "out.jsonl").read_text().splitlines()]

    return run


def test_each_kind_of_mutation_and_none_of_texts_or_annotations(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from mutation_kinds import mutated, mutations_of

    source = (
        'x: Literal[1] = -y\nif a < b and not c:\n    raise ValueError(f"{a + 1}")\nz.sum(dim=1)\np = q / "é" + NAME\n'
    )
    found = {(one.line, one.kind, one.after) for one in mutations_of(source, "x.py")}
    assert found == {
        (1, "sign", "(y)"), (2, "check", "False"), (2, "check", "(a < b or not c)"), (2, "check", "(c)"),
        (2, "check", "(a >= b)"), (2, "bound", "(a <= b)"), (4, "axis", "0"), (4, "bound", "2"),
        (5, "sign", "(q / 'é' - NAME)"),
    }  # fmt: skip
    last = mutations_of(source, "x.py")[-1]
    assert mutated(source, last) == source.replace('q / "é" + NAME', "(q / 'é' - NAME)")


def test_what_is_caught_what_is_not_and_continuing(tried, tiny):
    source = (tiny / "tiny" / "sums.py").read_text()
    _, first = tried(2)
    output, lines = tried(10)
    assert lines[:2] == first
    found = {line["line"]: (line["kind"], line["outcome"], line["by"]) for line in lines}
    assert found[2][:2] in {("check", "caught"), ("check", "not caught")}
    assert found[4] == ("sign", "caught", "tests/test_sums.py::test_the_sum")
    assert found[6][1:] == ("not caught", "")
    assert {line["line"] for line in lines} == {2, 4, 5, 6}
    assert f"| tiny/sums.py:6 | {found[6][0]}: `0` -> `1` | not caught |  |" in output
    assert (tiny / "tiny" / "sums.py").read_text() == source
