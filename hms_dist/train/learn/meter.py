"""Throughput of a rank, its share of time waiting for data, and durations of the phases of a run."""

import time
from collections.abc import Iterator

from hms_dist.stream.read.loader import Batch


class Meter:
    """An iterator over batches that counts their rows and the time spent waiting for them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._reset()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        before = time.perf_counter()
        batch = next(self._batches)
        self._waited_s += time.perf_counter() - before
        self._num_rows += len(batch.rows)
        return batch

    def read(self) -> tuple[float, float]:
        """Return rows per second of this rank and the share of time that it waited, since the last call."""
        elapsed_s = time.perf_counter() - self._started_s
        reading = self._num_rows / elapsed_s, self._waited_s / elapsed_s
        self._reset()
        return reading

    def _reset(self) -> None:
        self._started_s, self._waited_s, self._num_rows = time.perf_counter(), 0.0, 0


class Durations:
    """Durations of the phases of a run, kept until they are written to metrics.jsonl."""

    def __init__(self) -> None:
        self._started_s: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def begin(self, phase: str) -> None:
        """Start the clock of a phase."""
        self._started_s[phase] = time.perf_counter()

    def end(self, phase: str) -> float:
        """Stop the clock of a phase and return its seconds, which the next `pop` returns too."""
        seconds = round(time.perf_counter() - self._started_s[phase], 3)
        self._seconds[f"{phase}_s"] = seconds
        return seconds

    def pop(self) -> dict[str, float]:
        """Return the seconds of the phases that ended since the last call, as `<phase>_s`."""
        found, self._seconds = self._seconds, {}
        return found
