"""Benefits of reading by blocks on storage with high latency, and its cost in mixing.

python scripts/bench/locality.py [--latency_ms 30] [--seconds 10] [--num_recordings 48] [--json FILE]. Simulated
recordings are rendered once; their tars are linked under more names until there are some thousand rows. Every order of
rows is then read by the real reader through a storage with a delay, with one and with sixteen requests in flight. The
mixing of the same orders is computed for a table of the real size (full_size.py), 106,800 rows in tars of 128, whose
votes go with the EEG.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from threading import Event
from time import perf_counter, sleep
from typing import Any

import numpy as np
import pandas as pd
from full_size import NUM_ROWS, label_table
from order_mixing import design_effect, distinct_per_step, distinct_when_shuffled
from rounds import machine, write_json

from hms_dist.datasets import HMS
from hms_dist.recordings.simulate import Simulate
from hms_dist.recordings.simulate import run as simulate
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.rendering.shard_plan import plan_shards
from hms_dist.shards.index import Index, open_set
from hms_dist.shards.manifest import Manifest, tar_names
from hms_dist.stream.read.block_memory import BlockMemory, block_bounds
from hms_dist.stream.read.loader import Request, load
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.storage import LocalFiles
from hms_dist.stream.rows.epoch_plan import Batching, plan_epoch
from hms_dist.stream.rows.locality import LocalityConfig
from hms_dist.stream.rows.selections import SelectionConfig

PANELS = ["traces", "kaggle_spectrogram", "eeg_spectrogram"]
BATCHING = Batching(global_batch=24, group_size=8)
DEPTHS = (1, 16)
NUM_COPIES = 40
ORDERS: Mapping[str, LocalityConfig | None] = {
    "full shuffle": None,
    "blocks of 8": LocalityConfig(block_rows=8, window_blocks=1, num_lanes=1),
    "blocks of 32": LocalityConfig(block_rows=32, window_blocks=1, num_lanes=1),
    "blocks of 32, 8 lanes": LocalityConfig(block_rows=32, window_blocks=1, num_lanes=8),
    "blocks of 32, 8 lanes, windows of 4 (default)": LocalityConfig(),
    "blocks of 32, 24 lanes": LocalityConfig(block_rows=32, window_blocks=1, num_lanes=24),
}


class SlowFiles(LocalFiles):
    """Files of a folder behind a simulated network: every read is delayed."""

    def __init__(self, folder: Path, depth: int, latency_s: float) -> None:
        super().__init__(folder, depth)
        self._latency_s = latency_s
        self.num_requests = self.num_bytes = 0

    def read(self, name: str, start: int, size: int, cancelled: Event | None = None) -> bytes:
        """As Storage."""
        self.num_requests += 1
        self.num_bytes += size
        sleep(self._latency_s)
        return super().read(name, start, size, cancelled)


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--latency_ms", type=float, default=30, help="wait before each answer of the storage")
    words.add_argument("--rounds", type=int, default=3, help="times that every order is read")
    words.add_argument("--seconds", type=float, default=10, help="an order is read for this long, or to its end")
    words.add_argument("--num_recordings", type=int, default=48, help="simulated EEGs whose tars are read")
    words.add_argument("--num_rows", type=int, default=NUM_ROWS, help="rows of the table whose mixing is computed")
    words.add_argument("--json", type=Path, help="write every number to this file")
    return words


def main() -> None:
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="locality-") as scratch:
        folder, manifest, index = many_rows(Path(scratch), arguments.num_recordings)
        read(folder, manifest, index, None, SlowFiles(folder, 1, 0.0), seconds=1.0)  # compiles
        found: dict[str, dict[int, list[dict[str, float]]]] = {name: {} for name in ORDERS}
        for _ in range(arguments.rounds):
            for name, locality in ORDERS.items():
                for depth in DEPTHS:
                    files = SlowFiles(folder, depth, arguments.latency_ms / 1000)
                    result = read(folder, manifest, index, locality, files, seconds=arguments.seconds)
                    found[name].setdefault(depth, []).append(result)
    mixed, shuffled = mixing(arguments.num_rows)
    report = {
        "latency_ms": arguments.latency_ms,
        "rows": len(index),
        "machine": machine(("numpy", "numba", "zstandard")),
        "orders": {name: {**_medians(found[name]), **mixed[name]} for name in ORDERS},
        "when_shuffled": shuffled,
    }
    print("\n".join(lines(report)))
    if arguments.json:
        write_json(arguments.json, report)


def many_rows(scratch: Path, num_recordings: int) -> tuple[Path, Manifest, Index]:
    """Render simulated recordings, and link their tars under more names, as further rows."""
    simulate(Simulate(out=scratch / "data", num_recordings=num_recordings, seed=0))
    render(Render(data=scratch / "data", out=scratch / "set", samples_per_shard=64))
    manifest, index = open_set(scratch / "set")
    tars, frames = tar_names(manifest), []
    names = [f"shard-{number:06d}.tar" for number in range(len(tars) * NUM_COPIES)]
    for number, name in enumerate(names[len(tars) :], len(tars)):
        os.link(scratch / "set" / tars[number % len(tars)], scratch / "set" / name)
    for copy in range(NUM_COPIES):
        shift = {"shard": len(tars) * copy, "eeg_id": copy, "patient_id": copy}
        frames.append(index.frame.assign(**{name: index.frame[name] + by for name, by in shift.items()}))
    files = tuple({"name": name} for name in names)
    return scratch / "set", replace(manifest, files=files), Index(pd.concat(frames, ignore_index=True))


def read(
    folder: Path, manifest: Manifest, index: Index, locality: LocalityConfig | None, files: SlowFiles, *, seconds: float
) -> dict[str, float]:
    """Rows a second of an epoch in an order, read for `seconds` at most; requests and bytes for each row."""
    reader = ShardReader(folder, manifest, index, PANELS)
    reader.storage = files
    if locality is not None:
        bounds = block_bounds(index, reader.tars, list(manifest.panels), locality.block_rows)
        reader.storage = BlockMemory(files, bounds, locality.num_kept)
    start, num_rows, taken_s = perf_counter(), 0, 0.0
    batches = load(reader, groups(index, locality), threads=2)
    for batch in batches:
        num_rows += len(batch.rows)
        taken_s = perf_counter() - start
        if taken_s > seconds:
            break
    batches.close()
    reader.close()
    return {
        "rows_per_s": num_rows / taken_s,
        "requests_per_row": files.num_requests / num_rows,
        "kilobytes_per_row": files.num_bytes / num_rows / 1000,
    }


def groups(index: Index, locality: LocalityConfig | None) -> Iterator[Request]:
    """The groups of an epoch, as one rank requests them."""
    rows = plan(index, locality)
    for group in rows.reshape(-1, BATCHING.group_size):
        yield Request(group)


def plan(index: Index, locality: LocalityConfig | None) -> np.ndarray:
    """All rows in an order."""
    return plan_epoch(
        index, np.arange(len(index)), SelectionConfig(),
        seed=0, epoch=0, global_batch=BATCHING.global_batch, locality=locality,
    )  # fmt: skip


def mixing(num_rows: int) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """Mixing of every order at the real size, and the expectation of a full shuffle."""
    table = label_table(num_rows)
    rng = np.random.default_rng(0)
    classes = rng.integers(0, HMS.num_classes, table["eeg_id"].nunique())[table["eeg_id"].factorize()[0]]
    shares = 0.85 * np.eye(HMS.num_classes)[classes] + 0.15 / HMS.num_classes
    table[list(HMS.vote_columns)] = rng.multinomial(3, shares)
    plans = plan_shards(table, 128, 0)
    frame = pd.concat([table.iloc[list(shard.tar_order)].assign(shard=shard.number) for shard in plans])
    index, size = Index(frame.reset_index(drop=True)), BATCHING.global_batch
    found = {}
    for name, locality in ORDERS.items():
        rows = plan(index, locality)
        found[name] = {
            **{what: distinct_per_step(index.ids(what)[rows], size) for what in ("eeg_id", "patient_id")},
            "design_effect": design_effect(index.targets[rows], size),
        }
    return found, {what: distinct_when_shuffled(index.ids(what), size) for what in ("eeg_id", "patient_id")}


def lines(report: dict[str, Any]) -> list[str]:
    """The report as a Markdown table."""
    shuffled = report["when_shuffled"]
    header = (
        "order", *(f"rows/s, {depth} at once" for depth in DEPTHS), "requests per row", "kB per row",
        f"EEGs per step (of {shuffled['eeg_id']:.1f})", f"patients per step (of {shuffled['patient_id']:.1f})",
        "design effect",
    )  # fmt: skip
    rows = [header, ("---", *["--:"] * (len(header) - 1))]
    for name, order in report["orders"].items():
        speeds = (f"{order[f'rows_per_s_{depth}']:,.0f}" for depth in DEPTHS)
        reads = (f"{order['requests_per_row']:.2f}", f"{order['kilobytes_per_row']:.0f}")
        mixed = (f"{order['eeg_id']:.1f}", f"{order['patient_id']:.1f}", f"{order['design_effect']:.2f}")
        rows.append((name, *speeds, *reads, *mixed))
    return [f"| {' | '.join(row)} |" for row in rows]


def _medians(results: dict[int, list[dict[str, float]]]) -> dict[str, float]:
    """Medians over the rounds: rows a second at each depth, the rest at the last."""
    speeds = {f"rows_per_s_{depth}": median(one["rows_per_s"] for one in results[depth]) for depth in DEPTHS}
    rest = ("requests_per_row", "kilobytes_per_row")
    return speeds | {name: median(one[name] for one in results[DEPTHS[-1]]) for name in rest}


if __name__ == "__main__":
    main()
