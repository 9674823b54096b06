"""Repeat every test that draws random input, with fresh seeds; part of `make test-long`.

A test draws if it uses the fixture `rng` or `torch_rng`, or a shared fixture that draws (`rng_of`), or hypothesis.
Each runs three times first, which also measures its duration. A test that takes less than 50 ms then runs until it
has had 200 draws, one that takes less than a second until it has had 30. One pytest process runs all tests of a folder
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
from itertools import groupby
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


def file_of(test: str) -> str:
    return test.partition("::")[0]


def collect(paths: list[str], marks: str) -> dict[str, bool]:
    """The tests that draw, and whether `--rounds` repeats each."""
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "tests.json"
        process = run_pytest(["--collect-only", "--fresh-list", str(listed), "-m", marks, *paths])
        if process.returncode not in (0, 5) or not listed.exists():
            sys.exit(process.stdout)
        return {result["test"]: result["by_rounds"] for result in json.loads(listed.read_text())}


class Repetition:
    """Runs the processes of all folders, breadth first: every test is measured before one has its many rounds."""

    def __init__(self, tests: dict[str, bool], record: Path, marks: str) -> None:
        self.tests, self.record, self.marks = tests, record, marks
        self.folders: dict[str, list[str]] = defaultdict(list)
        for test in tests:
            self.folders[str(Path(file_of(test)).parent)].append(test)
        self.errors: dict[str, str] = {}  # output of processes that ended early

    def next_process(self, folder: str) -> tuple[int, list[str]]:
        """The `--rounds` of a folder's next process (0 if nothing is left) and its files."""
        record = read_record(self.record)
        missing = {test: needed(record.get(test, []), self.tests[test]) for test in self.folders[folder]}
        numbers = [number for test, number in missing.items() if number and self.tests[test]]
        rounds = min(numbers, default=int(any(missing.values())))
        files = {
            file_of(test) for test, number in missing.items() if number == rounds or (not self.tests[test] and number)
        }
        return rounds, sorted(files)

    def step(self, folder: str, rounds: int, files: list[str]) -> None:
        """Run one process."""
        started, (num_results, num_failures) = time.monotonic(), self.counts(folder)
        arguments = ["--seed", str(secrets.randbelow(2**32)), "--rounds", str(rounds), "-m", self.marks, *files]
        process = run_pytest(["--fresh-record", str(self.record), *arguments])
        results, failures = self.counts(folder)
        new, failures, seconds = results - num_results, failures - num_failures, time.monotonic() - started
        print(f"{folder} --rounds {rounds}: {new} tests, {failures} failures, {seconds:.0f} s", flush=True)
        if new == 0 or process.returncode not in (0, 1):
            self.errors[folder] = process.stdout[-2000:]

    def results_of(self, tests: Iterable[str]) -> list[Result]:
        """Read all results of these tests."""
        record = read_record(self.record)
        return [result for test in tests for result in record.get(test, [])]

    def counts(self, folder: str) -> tuple[int, int]:
        """The number of results and of failures of a folder."""
        results = self.results_of(self.folders[folder])
        return len(results), sum(len(result.failures) for result in results)

    def run(self, jobs: int) -> None:
        """Run the tests that the record lacks."""
        queue, running = deque(self.folders), dict[Future[None], str]()
        with ThreadPoolExecutor(jobs) as pool:
            while queue or running:
                while queue and len(running) < jobs:
                    folder = queue.popleft()
                    rounds, files = self.next_process(folder)
                    if rounds:
                        running[pool.submit(self.step, folder, rounds, files)] = folder
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    folder = running.pop(future)
                    future.result()
                    if folder not in self.errors:
                        queue.append(folder)

    def print_table(self) -> None:
        """Print a line for each file, below it each failure."""
        print(f"\n{'file':<50}{'tests':>7}{'rounds':>8}{'failures':>10}{'skipped':>9}")
        for file, tests in groupby(sorted(self.tests), file_of):
            names = list(tests)
            results = self.results_of(names)
            failures = [failure for result in results for failure in result.failures]
            rounds, skipped = sum(result.rounds for result in results), sum(result.skipped for result in results)
            print(f"{file:<50}{len(names):>7}{rounds:>8}{len(failures):>10}{skipped:>9}")
            for failure in failures:
                print(f"    {failure['repeat']}\n        {failure['reason']}")
        for folder, output in self.errors.items():
            print(f"\n{folder} ended early:\n{output}")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("paths", nargs="*", default=["tests"], help="files or folders of tests (default: tests)")
    words.add_argument("--record", type=Path, default=Path("build/fresh_seeds.jsonl"), help="where results are kept")
    words.add_argument("--jobs", type=int, default=2, help="pytest processes at a time (default: 2)")
    words.add_argument("-m", "--marks", default=QUICK, help="pytest's -m (default: the tests of `make test`)")
    return words


def main() -> int:
    options = parser().parse_args()
    record = options.record.absolute()
    record.parent.mkdir(parents=True, exist_ok=True)
    repetition = Repetition(collect(options.paths, options.marks), record, options.marks)
    repetition.run(options.jobs)
    repetition.print_table()
    failed = any(result.failures for result in repetition.results_of(repetition.tests))
    if not repetition.errors and record.exists():
        record.replace(record.with_name(f"{record.name}.done"))
    return int(failed or bool(repetition.errors))


if __name__ == "__main__":
    sys.exit(main())
