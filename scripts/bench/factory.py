"""Throughput and resource use of rendering: rows per second, scaling, memory, and an estimate for 106,800 rows.

python scripts/bench/factory.py [--num_rows 1500] [--repeats 2] [--full_rows 106800] [--json FILE]. Simulated recordings
are rendered by `hms-dist render` with 1 and with 2 workers in turn. Rows per second is the slope of finished rows over
time, which excludes the start of Python and numba. Then a table of the real size, all but two of its shards finished
(full_size.py), is rendered with the same command: planning, index and manifest.
"""

import argparse
import dataclasses
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from full_size import NUM_ROWS
from watch import watched

from hms_dist.core.files import write_json
from hms_dist.shards.manifest import read_manifest, tar_names

CORES = (1, 8, 64)


@dataclass(frozen=True)
class Rendering:
    """One run of `hms-dist render`."""

    workers: int
    num_rows: int
    num_bytes: int
    wall_s: float
    rows_per_s: float
    start_s: float
    """Wall time in addition to the rows' at that rate."""
    cpu_s: float
    """Processor time of all processes."""
    load: float
    """Load average in the minute before; more than the idle machine's 0 makes the run unreliable."""
    parent_mb: float
    worker_mb: float
    """The largest worker; with one worker the parent renders, and it is the parent."""


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--num_rows", type=int, default=1500, help="label rows to render in each run")
    words.add_argument("--repeats", type=int, default=2, help="runs with each number of workers; the fastest counts")
    words.add_argument("--full_rows", type=int, default=NUM_ROWS, help="rows of the table of the real size")
    words.add_argument("--json", type=Path, help="write every number to this file")
    return words


def main() -> None:
    arguments = parser().parse_args()
    with tempfile.TemporaryDirectory(prefix="factory-") as scratch:
        folder = Path(scratch)
        make_recordings(folder / "data", arguments.num_rows)
        render(folder, "warm", 2)
        runs = [render(folder, f"set-{n}-{w}", w) for n in range(arguments.repeats) for w in (1, 2)]
        watched([Path(__file__).with_name("full_size.py"), folder / "full", "--num_rows", arguments.full_rows])
        report = summary(runs, render(folder / "full", "set", 2, samples_per_shard=128))
    print("\n".join(lines(report)))
    if arguments.json:
        write_json(arguments.json, report)


def make_recordings(data: Path, num_rows: int) -> None:
    """Simulate 48 recordings (fewer for few rows), and copy them under new names until there are `num_rows` label
    rows."""
    recordings, workers = min(48, 1 + num_rows // 8), len(os.sched_getaffinity(0))
    watched(["-m", "hms_dist", "simulate", "--out", data, "--num_recordings", recordings, "--workers", workers])
    table = pd.read_csv(data / "train.csv")
    tables = []
    for copy in range(-(-num_rows // len(table))):
        shift = copy * 7
        tables.append(table.assign(**{name: table[name] + shift for name in ("eeg_id", "spectrogram_id")}))
        for kind in ("eeg", "spectrogram") if copy else ():
            for number in table[f"{kind}_id"].unique():
                folder = data / f"train_{kind}s"
                os.link(folder / f"{number}.parquet", folder / f"{number + shift}.parquet")
    pd.concat(tables).head(num_rows).to_csv(data / "train.csv", index=False)


def render(folder: Path, name: str, workers: int, samples_per_shard: int = 16) -> Rendering:
    """Render the recordings in `folder` into a set there.

    Shards are small, so that two workers end at about the same time; large ones make edge effects smaller.
    """
    out = folder / name
    load = os.getloadavg()[0]
    options = ["--workers", workers, "--samples_per_shard", samples_per_shard]
    done = watched(["-m", "hms_dist", "render", "--data", folder / "data", "--out", out, *options])
    manifest = read_manifest(out)
    ended = sorted((out / tar).stat().st_mtime for tar in tar_names(manifest))
    rows = list(itertools.accumulate(entry["num_samples"] for entry in manifest.files[: len(ended)]))
    rows_per_s = float(np.polyfit(np.array(ended) - ended[0], rows, 1)[0])
    return Rendering(
        workers=workers,
        num_rows=manifest.num_samples,
        num_bytes=sum(entry["num_bytes"] for entry in manifest.files),
        wall_s=done.wall_s,
        rows_per_s=rows_per_s,
        start_s=done.wall_s - manifest.num_samples / rows_per_s,
        cpu_s=done.cpu_s,
        load=load,
        parent_mb=done.own_mb,
        worker_mb=done.worker_mb if workers > 1 else done.own_mb,
    )


def summary(runs: Sequence[Rendering], full_size: Rendering) -> dict[str, Any]:
    """Every number of the report; scaling to many cores is extrapolated from one and two."""
    best = {w: max((run for run in runs if run.workers == w), key=lambda run: run.rows_per_s) for w in (1, 2)}
    efficiency = best[2].rows_per_s / (2 * best[1].rows_per_s)
    bytes_per_row = best[1].num_bytes / best[1].num_rows
    rates = {cores: best[1].rows_per_s * (cores * efficiency if cores > 1 else 1) for cores in CORES}
    return {
        "num_cores": len(os.sched_getaffinity(0)),
        "highest_load": max(run.load for run in runs),
        "runs": [dataclasses.asdict(run) for run in runs],
        "rows_per_s": {str(workers): run.rows_per_s for workers, run in best.items()},
        "efficiency": efficiency,
        "cpu_ms_per_row": {str(w): min(1000 * r.cpu_s / r.num_rows for r in runs if r.workers == w) for w in (1, 2)},
        "bytes_per_row": bytes_per_row,
        "worker_mb": max(run.worker_mb for run in runs),
        "parent_mb": max(run.parent_mb for run in runs if run.workers > 1),
        "projected_min": {str(cores): NUM_ROWS / rate / 60 for cores, rate in rates.items()},
        "projected_gb": NUM_ROWS * bytes_per_row / 1e9,
        "full_size": dataclasses.asdict(full_size),
    }


def lines(report: dict[str, Any]) -> list[str]:
    """The report as a Markdown table: what, found, wanted."""
    minutes = report["projected_min"]
    full = report["full_size"]
    rows = [
        ("rows/s, 1 worker", f"{report['rows_per_s']['1']:.1f}", ""),
        ("rows/s, 2 workers", f"{report['rows_per_s']['2']:.1f}", ""),
        (f"efficiency of 2 workers on {report['num_cores']} cores", f"{report['efficiency']:.0%}", "90 % or more"),
        ("processor ms per row, start included, 1 worker", f"{report['cpu_ms_per_row']['1']:.1f}", ""),
        ("processor ms per row, start included, 2 workers", f"{report['cpu_ms_per_row']['2']:.1f}", ""),
        ("highest load average before a run", f"{report['highest_load']:.1f}", "below 2: our own runs"),
        ("bytes per row", f"{report['bytes_per_row']:,.0f}", ""),
        ("peak memory of a worker", f"{report['worker_mb']:.0f} MB", "under 600 MB"),
        ("peak memory of the parent", f"{report['parent_mb']:.0f} MB", "under 500 MB"),
        *((f"{NUM_ROWS:,} rows on {cores} cores", f"{minutes[cores]:.1f} min", "") for cores in minutes),
        (f"{NUM_ROWS:,} rows on disk", f"{report['projected_gb']:.1f} GB", ""),
        (f"{full['num_rows']:,} rows, two shards open, to the manifest", f"{full['wall_s']:.1f} s", "under 60 s"),
        ("peak memory of its parent", f"{full['parent_mb']:.0f} MB", "under 500 MB"),
        ("peak memory of its workers", f"{full['worker_mb']:.0f} MB", "under 600 MB"),
    ]
    return ["| what | found | wanted |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in rows)]


if __name__ == "__main__":
    main()
