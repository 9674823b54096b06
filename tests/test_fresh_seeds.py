"""scripts/fresh_seeds.py on a small folder of tests of its own."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = {
    "tests/test_quick.py": """
        import pytest
        def test_sometimes_fails(rng):
            assert rng.random() > 0.5
        @pytest.mark.parametrize("name", ["a-b", "c"])
        def test_with_ids(rng, name): ...
        def test_without_draws(): ...
    """,
    "tests/test_shared.py": """
        import time
        def test_takes_a_moment(torch_rng):
            time.sleep(0.06)
        def test_of_a_shared_fixture(rng_of):
            time.sleep(1.1)
    """,
}


@pytest.fixture
def folder(tmp_path, repository) -> Path:
    (tmp_path / "tests").mkdir()
    shutil.copy(repository / "tests/conftest.py", tmp_path / "tests")
    for name, text in TESTS.items():
        (tmp_path / name).write_text(re.sub("^ {8}", "", text, flags=re.MULTILINE))
    return tmp_path


def start(folder: Path, repository: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(repository)}
    command = [sys.executable, str(repository / "scripts/fresh_seeds.py"), "--record", "record", "-m", ""]
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def wait_for_group(group: int) -> None:
    """Wait until the last process of a killed run has ended."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)


@pytest.mark.slow
def test_a_killed_repetition_continues_and_lists_failures_that_repeat(folder, repository) -> None:
    first = start(folder, repository)
    record = folder / "record"
    while not record.exists():
        assert first.poll() is None
        time.sleep(0.05)
    first.kill()
    first.wait()
    wait_for_group(first.pid)
    kept = record.read_text()

    second = start(folder, repository)
    table, _ = second.communicate()
    assert second.returncode == 1
    assert not record.exists()
    text = (folder / "record.done").read_text()
    assert text.startswith(kept)
    found = sorted((line["test"].partition("::")[2], line["rounds"]) for line in map(json.loads, text.splitlines()))
    assert found == [
        ("test_of_a_shared_fixture", 1),
        ("test_of_a_shared_fixture", 1),
        ("test_of_a_shared_fixture", 1),
        ("test_sometimes_fails", 3),
        ("test_sometimes_fails", 197),
        ("test_takes_a_moment", 3),
        ("test_takes_a_moment", 27),
        ("test_with_ids[a-b]", 3),
        ("test_with_ids[a-b]", 197),
        ("test_with_ids[c]", 3),
        ("test_with_ids[c]", 197),
    ]

    repeat = next(line for line in table.splitlines() if line.strip().startswith("pytest --seed"))
    again = subprocess.run(
        [sys.executable, "-m", *shlex.split(repeat)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed" in again.stdout
