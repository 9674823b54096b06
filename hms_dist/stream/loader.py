"""Groups of rows -> batches of stored panels as tensors, read ahead by threads, in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hms_dist.shards.schema import Array


@dataclass(frozen=True)
class Batch:
    """The stored panels of one group of rows, on the host."""

    rows: NDArray[np.int64]
    panels: dict[str, torch.Tensor]
    """Panel -> [m, *stored_shape]; bits packed in uint8."""


class Reader(Protocol):
    """What a loader reads from."""

    def read(self, rows: NDArray[np.int64]) -> dict[str, Array]:
        """Stored arrays of the rows, by panel."""


def load(reader: Reader, groups: Iterable[NDArray[np.int64]], *, threads: int, pin: bool) -> Iterator[Batch]:
    """Yield a Batch for each group of rows, in order; `threads` groups and as many again are read ahead.

    `pin`: put tensors into page-locked memory, from which copies to a GPU run beside its work. An error in
    a thread is raised here, in its place; closing the iterator stops the threads.
    """
    waiting: deque[Future[Batch]] = deque()
    remaining = iter(groups)
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="shard-reader") as pool:
        try:
            for rows in islice(remaining, 2 * max(threads, 1)):
                waiting.append(pool.submit(_batch, reader, rows, pin))
            while waiting:
                batch = waiting.popleft().result()
                for rows in islice(remaining, 1):
                    waiting.append(pool.submit(_batch, reader, rows, pin))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def _batch(reader: Reader, rows: NDArray[np.int64], pin: bool) -> Batch:
    panels = {name: torch.from_numpy(array) for name, array in reader.read(rows).items()}
    return Batch(rows, {name: tensor.pin_memory() for name, tensor in panels.items()} if pin else panels)
