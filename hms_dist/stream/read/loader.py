"""Requests for rows -> batches of stored panels as tensors, read ahead into reused memory, in order."""

from collections.abc import Generator, Iterable

from hms_dist.stream.read.batch import Batch, Request
from hms_dist.stream.read.prefetch import Prefetch
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.replacements import Replacements

__all__ = ["Batch", "Request", "load"]

MAX_DEFAULT = 64
"""Most batches read ahead unless the caller wants more."""


def load(
    reader: ShardReader,
    requests: Iterable[Request],
    *,
    threads: int,
    pin: bool = False,
    ahead: int | None = None,
    replacements: Replacements | None = None,
) -> Generator[Batch]:
    """Yield a Batch for each request, in order; it is valid until the next one is asked for.

    `threads` decode, and work on while Python is busy; 0: the caller decodes each batch when its turn comes. `ahead`
    batches are read ahead: that many and two more are all the memory that is used. None: two a thread, at least four,
    and as many as requests may be on their way, since a batch may be a single one; without threads one. `pin`:
    page-locked memory, from which copies to a GPU run beside its work. `replacements`: replaces damaged rows; None: the
    first one ends the stream.

    Whatever goes wrong with a request is raised in its place: UserError naming shard, key and bytes of a member that
    cannot be read, IndexError for a row that does not exist. Closing the iterator gives
    the threads back to the reader, for its next stream.
    """
    ahead = ahead or (max(2 * threads, 4, min(reader.storage.depth, MAX_DEFAULT)) if threads else 1)
    prefetch = Prefetch(reader, threads=threads, ahead=ahead, pin=pin, replacements=replacements)
    try:
        yield from prefetch.batches(iter(requests))
    finally:
        prefetch.close()
