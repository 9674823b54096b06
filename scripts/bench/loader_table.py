"""The report of the loader bench as Markdown."""

from typing import Any

OURS, WORST, LIMITS = "hms_dist", "WebDataset PNG", "read()"
TARGET = 20
"""Required speed-up over WORST."""


def lines(report: dict[str, Any]) -> list[str]:
    """Lines of the tables in docs/performance.md."""
    loaders = report["loaders"]
    head = ["loader", "samples/s, 0 / 1 / 2", "beside busy Python", "Python's share left", "cold", "first batch, s",
            "peak MB"]  # fmt: skip
    rows = [head, ["---", *["--:"] * (len(head) - 1)]]
    for name, found in loaders.items():
        rows.append(
            [
                name,
                *(_cells(found, key, form) for key, form in (
                    ("rate", ",.0f"), ("busy_rate", ",.0f"), ("python_share", ".0%"), ("cold_rate", ",.0f"),
                    ("first_batch_s", ".2f"), ("memory_mb", ",.0f"),
                )),
            ]
        )  # fmt: skip
    rows += [[name, why, *[""] * (len(head) - 2)] for name, why in report["missing"].items()]
    where = "in host memory" if report["device"] == "cpu" else f"finished on {report['device']}"
    return [
        f"Batches {where}; medians of {report['rounds']} rounds; load average at the end {report['load']:.1f}.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *_ratios(loaders),
        *_host(report["host_ms"]),
    ]


def _host(found: dict[str, dict[str, float]]) -> list[str]:
    """The host's time for a pass."""
    rows = [f"| {name} | {one['idle']:.2f} | {one['busy']:.1f} |" for name, one in found.items()]
    head = ["", "| canvas and augmentation of 32 rows, ms of the host | alone | beside busy Python |", "|---|--:|--:|"]
    return [*head, *rows] if rows else []


def _cells(found: dict[str, Any], key: str, form: str) -> str:
    """One number for each of 0, 1 and 2 workers; a dash where the loader has no such way."""
    return " / ".join(
        format(found["workers"][workers][key], form) if workers in found["workers"] else "-" for workers in "012"
    ).removesuffix(" / - / -")


def _ratios(loaders: dict[str, Any]) -> list[str]:
    """The rate of this package relative to each peer's with as many workers, and whether that is enough."""
    if OURS not in loaders:
        return []
    ours = loaders[OURS]["workers"]
    rows = ["| over | times faster, 0 / 1 / 2 | beside busy Python | target |", "|---|--:|--:|--:|"]
    for name, found in loaders.items():
        if name.startswith((OURS, LIMITS)):
            continue
        ratios = {
            key: [ours[w][key] / found["workers"][w][key] if w in found["workers"] else None for w in "012"]
            for key in ("rate", "busy_rate")
        }
        goal = TARGET if name == WORST else 1
        enough = all(ratio is None or ratio >= goal for ratio in ratios["rate"])
        text = {key: " / ".join("-" if ratio is None else f"{ratio:.1f}" for ratio in ratios[key]) for key in ratios}
        rows.append(f"| {name} | {text['rate']} | {text['busy_rate']} | {goal}{'' if enough else ' (missed)'} |")
    return rows
