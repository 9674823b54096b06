"""Threads that fill batches without the GIL.

A thread runs one loop (`decode.work`) for all streams that use it. Numbers of jobs are sent to the threads through one
pipe and come back through another, so nothing polls, and no named shared memory is left behind.
"""

import ctypes
import os
import select
import weakref
from collections.abc import Sequence
from threading import Lock, Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import JobError
from hms_dist.shards.schema import PanelSpec
from hms_dist.stream.read import decode

MAX_SLOTS = decode.STOP
"""Largest number of batches in progress: a number is one byte."""

_libc = ctypes.PyDLL(None)
"""C functions called without releasing the GIL, for calls that never block: while other Python threads are busy, it
takes 5 ms to acquire the GIL again."""


class Workers:
    """Threads that read members into the memory of slots. Without threads, `submit` runs a job in the calling
    thread."""

    def __init__(self, specs: Sequence[PanelSpec], num_threads: int) -> None:
        self._headers = [np.frombuffer(spec.npy_header, np.uint8) for spec in specs]
        panels = [
            (spec.codec == "npy.zst", spec.num_bytes, header.ctypes.data, len(header))
            for spec, header in zip(specs, self._headers, strict=True)
        ]
        self._jobs = np.zeros((MAX_SLOTS, 4), np.int64)
        self._stopped = np.zeros(1, np.uint8)
        self._failures: list[BaseException] = []
        self._num_in_progress, self._lock = 0, Lock()
        self._process = os.getpid()
        jobs_end, self._jobs_in = os.pipe()
        self._done_out, self._done_in = os.pipe()
        os.set_blocking(self._done_out, False)
        self._done = ctypes.create_string_buffer(MAX_SLOTS)
        self._wait = select.poll()
        self._wait.register(self._done_out, select.POLLIN)
        tables = (self._jobs, np.array(panels, np.int64), self._stopped)
        self._arguments = (jobs_end, self._done_in, *tables)
        self._threads = [
            Thread(target=_in_thread, args=(self._failures, *self._arguments), name="shard-reader", daemon=True)
            for _ in range(num_threads)
        ]
        pipes = (jobs_end, self._jobs_in, self._done_out, self._done_in)
        self.close = weakref.finalize(self, _stop, self._process, self._stopped, self._threads, pipes, self._headers)
        """End the threads, skipping jobs that have not begun; also called when the process ends."""
        for thread in self._threads:
            thread.start()

    @property
    def num_threads(self) -> int:
        """Number of threads."""
        return len(self._threads)

    @property
    def is_idle(self) -> bool:
        """Whether another stream of this process may use them: all jobs are done, and no thread failed."""
        return not (self._num_in_progress or self._failures) and self._process == os.getpid()

    def submit(self, number: int, requests: NDArray[np.int64], items: NDArray[np.int64]) -> None:
        """Start a job: `requests` [requests, columns] and `items` [items, columns], whose states it writes (see
        `decode`).

        The tables must exist until it is done. Raises JobError if the threads have ended.
        """
        self._jobs[number] = requests.ctypes.data, len(requests), items.ctypes.data, len(items)
        with self._lock:
            self._num_in_progress += 1
        words = bytes([number]) if self._threads else bytes([number, decode.STOP])
        if _libc.write(self._jobs_in, words, len(words)) != len(words):
            raise JobError(f"the pipe to the reader threads is closed (job {number})")
        if not self._threads:
            _work(*self._arguments)

    def fail(self, error: BaseException) -> None:
        """Make `finished` raise an error."""
        _fail(error, self._done_in, self._failures)

    def finished(self) -> list[int]:
        """Return the numbers of the jobs done since the last call; wait for at least one. Raises the error of a
        thread."""
        while (num_done := _libc.read(self._done_out, self._done, MAX_SLOTS)) < 1:
            self._wait.poll()
        numbers = list(self._done.raw[:num_done])
        with self._lock:
            self._num_in_progress -= num_done
        if decode.STOP in numbers:
            raise JobError(f"a reader thread failed: {self._failures[0]!r}") from self._failures[0]
        return numbers


class WorkerPool:
    """A pool of threads for the streams of one reader.

    Starting and ending threads takes 60 ms while Python is busy, too long for short epochs.
    """

    def __init__(self, specs: Sequence[PanelSpec]) -> None:
        self._specs = specs
        self._spare: list[Workers] = []
        self._lock = Lock()

    def take(self, num_threads: int) -> Workers:
        """Take `num_threads` threads for one stream."""
        with self._lock:
            for workers in self._spare:
                if workers.num_threads == num_threads and workers.is_idle:
                    self._spare.remove(workers)
                    return workers
        return Workers(self._specs, num_threads)

    def give_back(self, workers: Workers) -> None:
        """Return the threads of a stream that has ended. Unfinished jobs are skipped, and their threads end."""
        if not workers.is_idle:
            workers.close()
            return
        with self._lock:
            self._spare.append(workers)

    def close(self) -> None:
        """End the threads of streams that have ended."""
        with self._lock:
            spare, self._spare = self._spare, []
        for workers in spare:
            workers.close()


def _in_thread(failures: list[BaseException], *arguments: Any) -> None:
    try:
        _work(*arguments)
    except BaseException as error:  # `finished` raises it
        _fail(error, arguments[1], failures)


def _work(jobs_end: int, done_end: int, jobs: Any, panels: Any, stopped: Any) -> None:
    decompressor = decode.Decompressor()
    decode.work(jobs_end, done_end, jobs, panels, stopped, decompressor.address)


def _fail(error: BaseException, done_end: int, failures: list[BaseException]) -> None:
    failures.append(error)
    os.write(done_end, bytes([decode.STOP]))


def _stop(process: int, stopped: NDArray[np.uint8], threads: list[Thread], pipes: Sequence[int], headers: Any) -> None:
    """End the threads and close their pipes. `headers` must exist until the threads have ended."""
    if process == os.getpid():  # a forked process has the pipes, but not the threads
        stopped[0] = 1
        os.write(pipes[1], bytes([decode.STOP]) * len(threads))
        for thread in threads:
            thread.join()
    for pipe in pipes:
        os.close(pipe)
    del headers
