"""Load batches of stored panels as tensors, in the order of the requests, read ahead into reused memory."""

from collections.abc import Generator, Iterable

from hms_dist.stream.read.batch import Batch, Request
from hms_dist.stream.read.prefetch import Prefetch
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.replacements import Replacements

__all__ = ["Batch", "Request", "load"]

MAX_DEFAULT = 64
"""Largest default number of batches to read ahead."""


def load(
    reader: ShardReader,
    requests: Iterable[Request],
    *,
    threads: int,
    pin: bool = False,
    ahead: int | None = None,
    replacements: Replacements | None = None,
) -> Generator[Batch]:
    """Yield a Batch for each request, in order; it is valid until the next one is requested.

    `threads`: number of decoding threads, which do not need the GIL; 0: each batch is decoded when it is requested.
    `ahead`: number of batches to read ahead; memory is used for two more. None: two for each thread, at least four, and
    at least the number of concurrent reads of the storage, because a batch may be a single read; one without threads.
    `pin`: page-locked memory, for asynchronous copies to a GPU. `replacements`: replaces damaged rows; None: the first
    damaged row ends the stream.

    An error of a request is raised when its batch is requested: UserError naming shard, key and bytes of a member that
    cannot be read, IndexError for a row that does not exist. Closing the iterator returns the threads to the reader,
    for its next stream.
    """
    ahead = ahead or (max(2 * threads, 4, min(reader.storage.depth, MAX_DEFAULT)) if threads else 1)
    prefetch = Prefetch(reader, threads=threads, ahead=ahead, pin=pin, replacements=replacements)
    try:
        yield from prefetch.batches(iter(requests))
    finally:
        prefetch.close()
