"""Measuring side by side: candidates take turns, round by round, so that a disturbed moment disturbs all of them.

A turn is two runs, of which the second counts: each candidate is measured with the memory and caches that it has in a
long job, not with those that the one before it left.
"""

import json
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """One piece of work, done by this package and by its peers."""

    name: str
    """What is done, for the table."""
    ours: Callable[[], object]
    """This package's way."""
    peers: Mapping[str, Callable[[], object]]
    """Each peer's way, by the peer's name."""
    targets: Mapping[str, float] = field(default_factory=dict)
    """How many times faster than a peer this package has to be; a peer without a target is shown only."""
    check: Callable[[], None]
    """Asserts that both give the same, before anything is measured; it also warms caches and compiled code."""
    rounds: int = 7
    """Times that every candidate is measured."""
    items: int = 1
    """Pieces of work in one run; times are given for one of them."""


def measure(case: Case) -> dict[str, Any]:
    """Median milliseconds of every candidate, and the median over the rounds of each peer's time over ours."""
    case.check()
    candidates = {"hms_dist": case.ours, **case.peers}
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(case.rounds):
        for name, run in candidates.items():
            run()
            start = perf_counter()
            run()
            seconds[name].append(perf_counter() - start)
    ratios = {
        name: median(peer / ours for peer, ours in zip(seconds[name], seconds["hms_dist"], strict=True))
        for name in case.peers
    }
    return {
        "work": case.name,
        "milliseconds": {name: 1e3 * median(values) / case.items for name, values in seconds.items()},
        "times_faster": ratios,
        "targets": dict(case.targets),
        "rounds": case.rounds,
    }


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, a row a peer."""
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
    return "\n".join(lines)


def missed(results: list[dict[str, Any]]) -> bool:
    """Whether any ratio is below its target."""
    return any(
        result["times_faster"][peer] < wanted for result in results for peer, wanted in result["targets"].items()
    )


def machine(packages: tuple[str, ...]) -> dict[str, Any]:
    """Processor, Python, and the installed versions of `packages`."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": names[0].partition(": ")[2] if names else platform.processor(),
        "cores": len(names),
        "python": sys.version.split()[0],
        "versions": {name: version(name) for name in packages},
    }


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write everything measured, for other programs."""
    path.write_text(json.dumps(facts, indent=2) + "\n")
