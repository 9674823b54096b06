"""How fast a rank trains, how much of its time it waits for data, and how long the phases of a run take."""

import time
from collections.abc import Iterator

from hms_dist.stream.read.loader import Batch


class Meter:
    """Passes batches through and counts their rows and the time spent waiting for them."""

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
        """Rows a second of this rank and the share of the time that it waited, since the last reading."""
        elapsed_s = time.perf_counter() - self._started_s
        reading = self._num_rows / elapsed_s, self._waited_s / elapsed_s
        self._reset()
        return reading

    def _reset(self) -> None:
        self._started_s, self._waited_s, self._num_rows = time.perf_counter(), 0.0, 0


class Durations:
    """Seconds that the phases of a run take, kept until they are written."""

    def __init__(self) -> None:
        self._started_s: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    def begin(self, phase: str) -> None:
        """A phase begins."""
        self._started_s[phase] = time.perf_counter()

    def end(self, phase: str) -> float:
        """It ends; its seconds, of which `taken` keeps the last."""
        seconds = round(time.perf_counter() - self._started_s[phase], 3)
        self._seconds[f"{phase}_s"] = seconds
        return seconds

    def taken(self) -> dict[str, float]:
        """Seconds of the phases that ended since the last call, as `<phase>_s`."""
        found, self._seconds = self._seconds, {}
        return found
