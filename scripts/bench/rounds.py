"""Measurement in turns: candidates alternate round by round, so that a disturbance affects all of them.

A turn is two runs, of which the second counts: each candidate is measured with the memory and caches that it has in a
long job, not with those left by the previous candidate. Times are processor time of the process, all its threads, which
other work on the machine affects less than wall time.
"""

import json
import platform
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work, done by this package and by its peers."""

    name: str
    """Description of the work, for the table."""
    ours: Callable[[], object]
    """This package's way."""
    peers: Mapping[str, Callable[[], object]]
    """Each peer's way, by the peer's name; `check` compares with the first."""
    needs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Modules of the `bench` extra that a peer imports; a peer that lacks one is reported as not installed."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """Required speed-up over a peer; a peer without a target is only reported."""
    check: Callable[[], None]
    """Asserts that both give the same, before anything is measured; it also warms caches and compiled code."""
    rounds: int = 7
    """Times that every candidate is measured."""
    items: int = 1
    """Pieces of work in one run; times are given for one of them."""


def measure(case: Case) -> dict[str, Any]:
    """Median milliseconds of every candidate, and the median over the rounds of each peer's time over ours."""
    lacking = {name: why for name in case.peers if (why := not_installed(case.needs.get(name, ())))}
    if next(iter(case.peers)) in lacking:
        case.ours()
    else:
        case.check()
    candidates = {"hms_dist": case.ours, **{name: run for name, run in case.peers.items() if name not in lacking}}
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    by_the_clock: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(case.rounds):
        for name, run in candidates.items():
            run()
            clock, start = perf_counter(), process_time()
            run()
            taken[name].append(process_time() - start)
            by_the_clock[name].append(perf_counter() - clock)
    ratios = {
        name: median(peer / ours for peer, ours in zip(taken[name], taken["hms_dist"], strict=True))
        for name in candidates
        if name != "hms_dist"
    }
    return {
        "work": case.name,
        "milliseconds": {name: 1e3 * median(values) / case.items for name, values in taken.items()},
        "clock_milliseconds": {name: 1e3 * median(values) / case.items for name, values in by_the_clock.items()},
        "times_faster": ratios,
        "not_installed": lacking,
        "targets": dict(case.targets),
        "rounds": case.rounds,
    }


def not_installed(modules: Iterable[str]) -> str | None:
    """Reason why the first of `modules` that cannot be imported cannot be; None if all can."""
    for name in modules:
        try:
            with warnings.catch_warnings(action="ignore"):
                import_module(name)
        except (ImportError, OSError) as error:  # OSError: a shared library is missing
            return str(error)
    return None


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, a row per peer."""
    lines = ["| work | peer | peer ms | hms_dist ms | times faster | target |", "|---|---|--:|--:|--:|--:|"]
    for result in results:
        milliseconds = result["milliseconds"]
        for peer, ratio in result["times_faster"].items():
            wanted = result["targets"].get(peer)
            goal = "" if wanted is None else f"{wanted:g}" + ("" if ratio >= wanted else " (missed)")
            lines.append(
                f"| {result['work']} | {peer} | {milliseconds[peer]:.3g} | {milliseconds['hms_dist']:.3g} "
                f"| {ratio:.3g} | {goal} |"
            )
        ours = f"{milliseconds['hms_dist']:.3g}"
        lines += [f"| {result['work']} | {peer} | not installed | {ours} | | |" for peer in result["not_installed"]]
    return "\n".join(lines)


def missed(results: list[dict[str, Any]]) -> bool:
    """Whether any measured ratio is below its target."""
    return any(
        ratio < result["targets"].get(peer, 0) for result in results for peer, ratio in result["times_faster"].items()
    )


def machine(packages: tuple[str, ...]) -> dict[str, Any]:
    """Processor, Python, and the installed versions of `packages`."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": len(names),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write everything measured, for other programs."""
    path.write_text(json.dumps(facts, indent=2) + "\n")
