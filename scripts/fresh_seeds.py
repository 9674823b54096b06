"""Repeat every test that draws random input, with fresh seeds; part of `make test-long`.

A test draws if it uses the fixture `rng` or `torch_rng`, or a shared fixture that draws (`rng_of`), or hypothesis.
Each runs three times first, which also measures its duration. A test that takes less than 50 ms then runs until it
has had 200 draws, one that takes less than a second until it has had 30. One pytest process runs all tests of a file
that need the same number of rounds. Tests of hypothesis, and those that draw in a shared fixture only, need a process
for each seed, and have ten (three if they take longer than a second).

Each finished test adds a line to the record, so that the same command continues a run that was stopped. At the end,
a table lists the files and each failure with the command that repeats it, and the record is renamed to `*.done`.
The exit status is 1 if a test failed. Some files only, beside a run that was stopped: `--record again tests/model`.

The same file is the pytest plugin of the processes that it starts: it selects their tests and writes the record.
"""

import argparse
import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pytest

FIRST_ROUNDS = 3
BY_ROUNDS = ((0.05, 200), (1.0, 30), (float("inf"), FIRST_ROUNDS))  # seconds below which a test has how many draws
BY_SEEDS = ((1.0, 10), (float("inf"), 3))
QUICK = "not slow and not gpu and not slurm and not browser and not real_data and not long"


@dataclass
class Result:
    """Outcome of one test in one process."""

    test: str
    by_rounds: bool
    rounds: int = 0
    skipped: int = 0
    seconds: float = float("inf")  # of its fastest round
    failures: list[dict[str, str]] = field(default_factory=list)


def read_record(path: Path) -> dict[str, list[Result]]:
    """Read the results of each test. A line that a kill cut off is ignored."""
    results = defaultdict(list)
    for line in path.read_text().splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            result = Result(**json.loads(line))
            results[result.test].append(result)
    return results


def needed(results: list[Result], by_rounds: bool) -> int:
    """Draws that a test still needs. Its first result decides, so that the number never changes."""
    if not results:
        return FIRST_ROUNDS if by_rounds else 1
    if all(result.skipped for result in results):
        return 0
    wanted = next(number for limit, number in (BY_ROUNDS if by_rounds else BY_SEEDS) if results[0].seconds < limit)
    return max(0, wanted - sum(result.rounds for result in results))


class Plugin:
    """The part that runs within pytest."""

    def __init__(self, config: pytest.Config) -> None:
        self.record: Path | None = config.option.fresh_record
        self.seed, self.rounds = config.option.seed, config.option.rounds
        self.parent = config.option.fresh_parent
        self.left: Counter[str] = Counter()  # rounds of each test that have not run yet
        self.results: dict[str, Result] = {}
        self.test_of: dict[str, str] = {}
        self.seconds: dict[str, float] = defaultdict(float)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Keep the tests that draw and, in a process that runs them, those that need this number of rounds."""
        before = read_record(self.record) if self.record else {}
        kept = []
        for item in items:
            by_rounds = bool({"rng", "torch_rng"} & set(item.fixturenames))  # type: ignore[attr-defined]
            hypothesis = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
            if not (by_rounds or hypothesis or "rng_of" in item.fixturenames):  # type: ignore[attr-defined]
                continue
            test = without_round(item)
            missing = needed(before.get(test, []), by_rounds)
            if self.record and (missing != self.rounds if by_rounds else missing == 0):
                continue
            kept.append(item)
            self.left[test] += 1
            self.results[test], self.test_of[item.nodeid] = Result(test, by_rounds), test
        items[:] = kept
        if config.option.fresh_list:
            config.option.fresh_list.write_text(json.dumps([asdict(result) for result in self.results.values()]))

    def pytest_runtest_logstart(self) -> None:
        """Stop when the process that started this one is gone: the next one takes over."""
        if os.getppid() != self.parent:
            pytest.exit("the process that started this one was killed")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add the duration and a failure of one phase: setup, call or teardown."""
        result = self.results[self.test_of[report.nodeid]]
        self.seconds[report.nodeid] += report.duration
        result.skipped += report.skipped and not hasattr(report, "wasxfail")
        if report.failed:
            rounds = f" --rounds {self.rounds}" if self.rounds > 1 and result.by_rounds else ""
            reason = next((line for line in report.longreprtext.splitlines() if line.startswith("E ")), "")
            result.failures.append(
                {"repeat": f"pytest --seed {self.seed}{rounds} '{report.nodeid}'", "reason": reason[1:].strip()}
            )

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Record a test after its last round."""
        test = self.test_of[nodeid]
        result = self.results[test]
        result.rounds += 1
        result.seconds = min(result.seconds, self.seconds[nodeid])
        self.left[test] -= 1
        if self.left[test] == 0 and self.record:
            with self.record.open("a") as file:  # one write of one line: other processes append too
                file.write(json.dumps(asdict(result)) + "\n")


def without_round(item: pytest.Item) -> str:
    """The id of a test as it is without `--rounds`."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    if "_round" not in params:
        return item.nodeid
    name, _, ids = item.nodeid.partition("[")
    ids = f"-{ids[:-1]}-".replace(f"-round{params['_round']}-", "-", 1).strip("-")
    return f"{name}[{ids}]" if ids else name


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the processes that this file starts."""
    parser.addoption("--fresh-record", type=Path)
    parser.addoption("--fresh-list", type=Path)
    parser.addoption("--fresh-parent", type=int)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the plugin, after conftest.py has settled the seed."""
    config.pluginmanager.register(Plugin(config))


def run_pytest(arguments: Iterable[str]) -> subprocess.CompletedProcess[str]:
    """Run pytest with this file as a plugin."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "fresh_seeds",
        "-q",
        "--fresh-parent",
        str(os.getpid()),
        *arguments,
    ]
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, check=False
    )


def collect(paths: list[str], marks: str) -> dict[str, dict[str, bool]]:
    """For each file, its tests that draw, and whether `--rounds` repeats them."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "tests.json"
        process = run_pytest(["--collect-only", "--fresh-list", str(listed), "-m", marks, *paths])
        if process.returncode not in (0, 5) or not listed.exists():
            sys.exit(process.stdout)
        files: dict[str, dict[str, bool]] = defaultdict(dict)
        for result in json.loads(listed.read_text()):
            files[result["test"].partition("::")[0]][result["test"]] = result["by_rounds"]
    return files


def next_rounds(tests: dict[str, bool], record: dict[str, list[Result]]) -> int:
    """The `--rounds` of the next process of a file, 0 if nothing is left. Tests not measured yet come first."""
    missing = {(needed(record.get(test, []), by_rounds), by_rounds) for test, by_rounds in tests.items()}
    rounds = sorted(number for number, by_rounds in missing if by_rounds and number)
    return rounds[0] if rounds else int(any(number for number, by_rounds in missing if not by_rounds))


class Repetition:
    """Runs the processes of all files, breadth first: every file is measured before one has its many rounds."""

    def __init__(self, files: dict[str, dict[str, bool]], record: Path, marks: str) -> None:
        self.files, self.record, self.marks = files, record, marks
        self.errors: dict[str, str] = {}  # output of processes that recorded nothing

    def left(self, file: str) -> int:
        """Rounds of the file's next process."""
        return next_rounds(self.files[file], read_record(self.record))

    def step(self, file: str, rounds: int) -> None:
        """Run one process."""
        started, before = time.monotonic(), self.results_of(file)
        arguments = ["--seed", str(secrets.randbelow(2**32)), "--rounds", str(rounds), "-m", self.marks, file]
        process = run_pytest(["--fresh-record", str(self.record), *arguments])
        new = self.results_of(file)[len(before) :]
        failures = sum(len(result.failures) for result in new)
        seconds = time.monotonic() - started
        print(f"{file} --rounds {rounds}: {len(new)} tests, {failures} failures, {seconds:.0f} s", flush=True)
        if not new or process.returncode not in (0, 1):
            self.errors[file] = process.stdout[-2000:]

    def results_of(self, file: str) -> list[Result]:
        """Read all results of a file."""
        record = read_record(self.record)
        return [result for test in self.files[file] for result in record.get(test, [])]

    def run(self, jobs: int) -> None:
        """Run what the record lacks."""
        queue, running = deque(self.files), dict[Future[None], str]()
        with ThreadPoolExecutor(jobs) as pool:
            while queue or running:
                while queue and len(running) < jobs:
                    file = queue.popleft()
                    if rounds := self.left(file):
                        running[pool.submit(self.step, file, rounds)] = file
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    file = running.pop(future)
                    future.result()
                    if file not in self.errors:
                        queue.append(file)

    def print_table(self) -> None:
        """Print a line for each file, below it each failure."""
        print(f"\n{'file':<50}{'tests':>7}{'rounds':>8}{'failures':>10}{'skipped':>9}")
        for file in sorted(self.files):
            results = self.results_of(file)
            failures = sum(len(result.failures) for result in results)
            rounds, skipped = sum(result.rounds for result in results), sum(result.skipped for result in results)
            print(f"{file:<50}{len(self.files[file]):>7}{rounds:>8}{failures:>10}{skipped:>9}")
            for failure in (failure for result in results for failure in result.failures):
                print(f"    {failure['repeat']}\n        {failure['reason']}")
            if file in self.errors:
                print(f"    ended early:\n{self.errors[file]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=["tests"], help="files or folders of tests (default: tests)")
    parser.add_argument("--record", type=Path, default=Path("build/fresh_seeds.jsonl"), help="where results are kept")
    parser.add_argument("--jobs", type=int, default=2, help="pytest processes at a time (default: 2)")
    parser.add_argument("-m", "--marks", default=QUICK, help="pytest's -m (default: the tests of `make test`)")
    options = parser.parse_args()
    record = options.record.absolute()
    record.parent.mkdir(parents=True, exist_ok=True)
    repetition = Repetition(collect(options.paths, options.marks), record, options.marks)
    repetition.run(options.jobs)
    repetition.print_table()
    failed = any(result.failures for file in repetition.files for result in repetition.results_of(file))
    if not repetition.errors and record.exists():
        record.replace(record.with_name(f"{record.name}.done"))
    return int(failed or bool(repetition.errors))


if __name__ == "__main__":
    sys.exit(main())
