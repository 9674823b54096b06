"""Concurrent reads for storage of high latency, in threads other than those that decode."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

from hms_dist.stream.read import decode
from hms_dist.stream.read.job import Job
from hms_dist.stream.read.storage import Storage
from hms_dist.stream.read.workers import Workers


class Fetcher:
    """Threads that read the ranges of jobs; when all ranges of a job are read, it goes to the decoding threads."""

    def __init__(self, storage: Storage, tars: list[str], workers: Workers) -> None:
        self._storage, self._tars, self._workers = storage, tars, workers
        self._pool = ThreadPoolExecutor(storage.depth, thread_name_prefix="shard-fetcher")
        self._missing: dict[int, int] = {}
        self._cancelled = Event()
        self._lock = Lock()

    def begin(self, number: int, job: Job) -> None:
        """Start to read the ranges of a job."""
        self._missing[number] = len(job.requests)
        if not len(job.requests):
            self._workers.submit(number, job.requests, job.items)
        for place in range(len(job.requests)):
            self._pool.submit(self._fetch, number, job, place)

    def close(self) -> None:
        """Cancel reads that have not begun and retries; wait for the current reads, and end the threads."""
        self._cancelled.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool.shutdown(wait=True)
        self._storage.close()

    def _fetch(self, number: int, job: Job, place: int) -> None:
        start, length = job.requests[place, [decode.START, decode.LENGTH]].tolist()
        try:
            name = self._tars[job.ranges.shard[place]]
            job.set_content(place, self._storage.read(name, start, length, self._cancelled))
        except Exception as error:  # raised when the caller gets this batch
            job.errors[place] = error
        with self._lock:
            self._missing[number] -= 1
            complete = not self._missing[number]
        if complete:
            try:
                self._workers.submit(number, job.requests, job.items)
            except BaseException as error:
                self._workers.fail(error)
