"""Read-ahead of the loader: requests are started early, and their batches returned in order."""

from collections import deque
from collections.abc import Iterator

from hms_dist.core.jit import raise_interrupt
from hms_dist.stream.read.batch import Batch, Request
from hms_dist.stream.read.fetch import Fetcher
from hms_dist.stream.read.job import Job
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.replacements import Replacements
from hms_dist.stream.read.storage import LocalFiles
from hms_dist.stream.read.workers import MAX_SLOTS


class Prefetch:
    """A ring of slots: `ahead` batches in progress, one that the caller uses, and one that a GPU may still copy."""

    def __init__(
        self, reader: ShardReader, *, threads: int, ahead: int, pin: bool, replacements: Replacements | None
    ) -> None:
        if not 1 <= ahead <= MAX_SLOTS - 2:
            raise ValueError(f"ahead: expected 1 to {MAX_SLOTS - 2}, found {ahead}")
        self._reader, self._replacements, self._ahead = reader, replacements, ahead
        self._slots = reader.slots.take(ahead + 2, pin=pin)
        self._pin = pin
        self._free: deque[int] = deque()
        self._copying = deque(range(ahead + 2))
        """Slots that the caller no longer uses; a GPU may still read their memory."""
        self._lent: int | None = None
        self._in_progress: deque[tuple[int, Job | Exception]] = deque()
        self._done: set[int] = set()
        self._workers = reader.worker_pool.take(threads)
        storage = reader.storage
        self._local = storage if isinstance(storage, LocalFiles) and storage.direct else None
        self._fetcher = None if self._local else Fetcher(storage, reader.tars, self._workers)

    def batches(self, requests: Iterator[Request]) -> Iterator[Batch]:
        """Yield the batches in order; requesting one releases the memory of the previous one."""
        try:
            yield from self._batches(requests)
        except SystemError as error:
            raise_interrupt(error)
            raise

    def _batches(self, requests: Iterator[Request]) -> Iterator[Batch]:
        more = True
        while more or self._in_progress:
            while more and len(self._in_progress) < self._ahead and self._slot_is_free():
                request = next(requests, None)
                more = request is not None
                if request is not None:
                    self._begin(self._free.popleft(), request)
            if self._in_progress:
                self._lent, job = self._in_progress.popleft()
                yield self._finished(self._lent, job)
                self._copying.append(self._lent)
                self._lent = None

    def close(self) -> None:
        """Return threads and memory to the reader, except the memory of a batch that the caller may still use."""
        if self._fetcher is not None:
            self._fetcher.close()
        self._reader.worker_pool.give_back(self._workers)
        slots = [slot for number, slot in enumerate(self._slots) if number != self._lent]
        self._reader.slots.give_back(slots, pin=self._pin)

    def _slot_is_free(self) -> bool:
        """Whether there is a free slot. Slots that a GPU has copied become free; wait for a copy only if idle
        otherwise."""
        while self._copying and (self._slots[self._copying[0]].is_free() or not (self._free or self._in_progress)):
            self._slots[self._copying[0]].wait_until_free()
            self._free.append(self._copying.popleft())
        return bool(self._free)

    def _begin(self, number: int, request: Request) -> None:
        """Plan and start a request; an error is raised later, when its batch is requested."""
        try:
            job = Job(self._reader, request, self._slots[number])
        except Exception as error:
            raise_interrupt(error)
            self._in_progress.append((number, error))
            return
        self._in_progress.append((number, job))
        if self._local is not None:
            job.open_files(self._local)
            self._workers.submit(number, job.requests, job.items)
        elif self._fetcher is not None:
            self._fetcher.begin(number, job)

    def _finished(self, number: int, job: Job | Exception) -> Batch:
        if isinstance(job, Exception):
            raise job
        while number not in self._done:
            self._done.update(self._workers.finished())
        self._done.remove(number)
        return job.batch(self._replacements)
