"""Check that the tests catch mistakes: make one small mistake at a time in a copy of the checkout and run tests there.

python scripts/mutations.py --seed 20261130 --number 40 --out mutations.jsonl

Lines are drawn by the seed from the code in `ROOMS`, and at each line one mutation: a sign or operator (`+` to `-`), an
axis (`dim=0` to `dim=1`), a bound (`<` to `<=`, `n` to `n + 1`), a check (`if ...: raise` never raises, a comparison
negated, `and` to `or`). Tests are run until the first failure: those named after the file, those of its room, those of
the rooms that use it, then the slow ones. Each finished mutation is a line of the file; the same command resumes. At
the end the table is printed, in Markdown. A mutation that no test catches needs a test, or a reason why it changes no
behaviour.

Code that this machine cannot run (kernels for a GPU) is not drawn.
"""

import argparse
import importlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from mutation_kinds import Mutation, mutated, mutations_of

REPOSITORY = Path(__file__).parents[1]
PRELOADED = ("pandas", "pyarrow.parquet", "numba", "scipy.signal", "torch", "timm", "accelerate", "jsonargparse")
"""Imported once for all runs."""
ELSEWHERE = "gpu or slurm or browser or real_data or long"
"""Marks of tests that are never run."""


@dataclass(frozen=True)
class Room:
    """Code to draw lines from and its tests: patterns, files and folders, relative to the repository."""

    code: tuple[str, ...]
    tests: tuple[str, ...]
    users: tuple[str, ...] = ()
    """Tests of the rooms that use it, the cheapest first."""


_SHARDS, _TINY_VIT, _GOLDEN = "hms_dist/shards", "hms_dist/model/tiny_vit", "tests/test_golden.py"
ROOMS = {
    "plan": Room(
        ("hms_dist/stream/rows/*.py",),
        ("tests/stream/rows",),
        (_GOLDEN, "tests/train/data", "tests/train/learn", "tests/train/test_run.py"),
    ),
    "step": Room(
        ("hms_dist/train/learn/*.py", "hms_dist/train/optimise/*.py"),
        ("tests/train/optimise", "tests/train/learn"),
        (_GOLDEN, "tests/train/test_run.py", "tests/train/test_sliding_run.py", "tests/train/ranks"),
    ),
    "norms": Room(
        ("hms_dist/model/group_norms.py", "hms_dist/model/norm_act.py", f"{_TINY_VIT}/blocks.py"),
        ("tests/model/test_group_norms.py", "tests/model/tiny_vit"),
        (_GOLDEN, "tests/model", "tests/train/learn", "tests/train/ranks"),
    ),
    "digests": Room(
        ("hms_dist/core/files.py", f"{_SHARDS}/index*.py", f"{_SHARDS}/*writer.py", f"{_SHARDS}/manifest*.py",
         f"{_SHARDS}/tar_check.py", "hms_dist/rendering/find_faults.py"),
        ("tests/core/test_files.py", "tests/shards"),
        (_GOLDEN, "tests/rendering", "tests/stream"),
    ),
    "checkpoints": Room(
        ("hms_dist/train/folder/checkpoint.py", "hms_dist/train/folder/whole_folder.py"),
        ("tests/train/folder/test_checkpoint.py", "tests/train/folder"),
        (_GOLDEN, "tests/train/test_run.py", "tests/train/test_stages.py", "tests/predict"),
    ),
}  # fmt: skip
"""Room -> its code and tests: the one place to change when files move."""


def draw(repository: Path, rooms: dict[str, Room], seed: int, number: int) -> list[tuple[str, Mutation]]:
    """`number` mutations with their rooms, at different lines."""
    by_line: dict[tuple[str, str, int], list[Mutation]] = defaultdict(list)
    for name, room in rooms.items():
        files = sorted({path for pattern in room.code for path in repository.glob(pattern)})
        if not files:
            raise SystemExit(f"mutations.py: {', '.join(room.code)}: no such file; correct ROOMS")
        for path in files:
            file = str(path.relative_to(repository))
            for mutation in mutations_of(path.read_text(), file):
                by_line[name, file, mutation.line].append(mutation)
    chance = random.Random(seed)
    lines = chance.sample(sorted(by_line), min(number, len(by_line)))
    return [(line[0], chance.choice(by_line[line])) for line in lines]


def try_out(scratch: Path, room: Room, mutation: Mutation, limit_s: float) -> dict[str, Any]:
    """Run the tests with the mutation in `scratch`, and undo it; return the outcome, the failing test and the
    seconds."""
    path, began = scratch / mutation.file, time.monotonic()
    source = path.read_text()
    path.write_text(mutated(source, mutation))
    try:
        outcome, by = _first_failure(scratch, room, f"test_{Path(mutation.file).stem}", limit_s)
    finally:
        path.write_text(source)
    return {"outcome": outcome, "by": by, "seconds": round(time.monotonic() - began)}


def _first_failure(scratch: Path, room: Room, name: str, limit_s: float) -> tuple[str, str]:
    own, users = ([scratch / test for test in tests] for tests in (room.tests, room.users))
    files = [path for test in own for path in ([test] if test.is_file() else sorted(test.rglob("test_*.py")))]
    named = [path for path in files if path.stem == name]
    quick, slow = (f"{word} and not ({ELSEWHERE})" for word in ("not slow", "slow"))
    for paths, marks in ((named, quick), (own, quick), (users, quick), ([*own, *users], slow)):
        words = list(dict.fromkeys(str(path.relative_to(scratch)) for path in paths))
        if not words:
            continue
        code, output = _pytest(scratch, ["-x", "-q", "-p", "no:cacheprovider", "-m", marks, *words], limit_s)
        if code is None:
            return "not finished", marks
        if code in (1, 2):
            first = re.search(r"^(?:FAILED|ERROR) (\S+\.py.*?)(?: - |$)", output, re.MULTILINE)
            return "caught", first[1] if first else output[-300:]
        if code not in (0, 5):  # 5: no test has these marks
            raise SystemExit(f"mutations.py: pytest ended with {code}\n{output[-2000:]}")
    return "not caught", ""


def _pytest(scratch: Path, words: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Exit code (None: it took too long) and output of pytest in a fork of this process, whose imports it inherits."""
    with tempfile.TemporaryFile("w+") as log:
        pid = os.fork()
        if not pid:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
            os.chdir(scratch)
            os.environ["PYTHONPATH"] = str(scratch)
            sys.path.insert(0, str(scratch))
            os._exit(int(pytest.main(list(words))))
        done, status, ends = 0, 0, time.monotonic() + limit_s
        try:
            while not done and time.monotonic() < ends:
                time.sleep(0.1)
                done, status = os.waitpid(pid, os.WNOHANG)
        finally:
            with suppress(ProcessLookupError):  # and anything its tests left running
                os.killpg(pid, signal.SIGKILL)
        if not done:
            os.waitpid(pid, 0)
        log.seek(0)
        return os.waitstatus_to_exitcode(status) if done else None, log.read()


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row for each mutation."""
    rows = ["| place | mutation | outcome | by |", "|---|---|---|---|"]
    for line in lines:
        change = f"`{' '.join(line['before'].split())}` -> `{line['after']}`".replace("|", "\\|")
        rows.append(f"| {line['file']}:{line['line']} | {line['kind']}: {change} | {line['outcome']} | {line['by']} |")
    return "\n".join(rows)


def run(repository: Path, rooms: dict[str, Room], seed: int, number: int, out: Path, limit_s: float) -> str:
    """Run the drawn mutations that `out` does not list yet; return the table of all."""
    drawn = draw(repository, rooms, seed, number)
    lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    done = {Mutation(*(line[name] for name in Mutation.__annotations__)) for line in lines}
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in filter(None, tracked.stdout.split("\0")):
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(repository / name, scratch / name)
        for room, mutation in drawn:
            if mutation not in done:
                line = {**asdict(mutation), "room": room, **try_out(scratch, rooms[room], mutation, limit_s)}
                lines.append(line)
                with out.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(f"{line['file']}:{line['line']}: {line['outcome']} {line['by']}", flush=True)
    return table(lines)


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--seed", type=int, default=0, help="which lines and mutations are drawn")
    words.add_argument("--number", type=int, default=40, help="mutations")
    words.add_argument("--out", type=Path, required=True, help="file of finished mutations, a JSON object a line")
    words.add_argument("--limit_s", type=float, default=1800, help="longest run of the tests of one mutation, seconds")
    return words


def main() -> None:
    given = parser().parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the tests that run, too
    for name in PRELOADED:
        importlib.import_module(name)
    print(f"seed {given.seed}, {given.number} mutations")
    print(run(REPOSITORY, ROOMS, given.seed, given.number, given.out, given.limit_s))


if __name__ == "__main__":
    main()
