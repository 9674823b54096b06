"""Progress of rendering: an estimate of size and time at the start, then a progress bar or log lines."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from hms_dist.core.logging import LOG
from hms_dist.jobs.worker_processes import run_apart
from hms_dist.rendering.render_shard import ShardTask, probe


def log_estimate(tasks: Sequence[ShardTask], out: Path, workers: int) -> None:
    """Log the expected output size, the free disk space and the expected time, measured by rendering one row."""
    if not tasks:
        return
    # With workers, in a separate process: the parent then need not import the drawing code.
    seconds, num_bytes = probe(tasks[0]) if workers == 1 else run_apart(probe, tasks[0])
    num_rows, free = sum(len(task.rows) for task in tasks), free_bytes(out)
    LOG.info(
        "about %.0f MB to write, %.0f MB free; about %.1f min with %d workers",
        num_rows * num_bytes / 1e6, free / 1e6, num_rows * seconds / workers / 60, workers,
    )  # fmt: skip
    if workers > (num_cores := len(os.sched_getaffinity(0))):
        LOG.warning("%d workers share %d cores; more workers than cores make it slower", workers, num_cores)
    if num_rows * num_bytes > free:
        LOG.warning("%s: not enough disk space; finished shards stay, and the same command continues", out)


class Progress:
    """A progress bar on a terminal, otherwise occasional log lines: rows done, rows per second, minutes left."""

    EVERY_S = 30.0

    def __init__(self, num_rows: int) -> None:
        self._bar = tqdm(total=num_rows, unit="row", disable=None)
        self._num_rows, self._done = num_rows, 0
        self._started = self._logged = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
        LOG.info("%d of %d rows rendered in %.1f s", self._done, self._num_rows, time.monotonic() - self._started)

    def add(self, num_rows: int) -> None:
        """Count rows as done."""
        self._bar.update(num_rows)
        self._done += num_rows
        now = time.monotonic()
        if not sys.stderr.isatty() and now - self._logged > self.EVERY_S:
            rate = self._done / (now - self._started)
            left_min = (self._num_rows - self._done) / rate / 60
            LOG.info("%d of %d rows, %.1f rows/s, %.0f min left", self._done, self._num_rows, rate, left_min)
            self._logged = now


def free_bytes(folder: Path) -> int:
    """Free bytes on the file system of `folder`, which need not exist."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
