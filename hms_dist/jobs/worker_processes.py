"""Pools of worker processes that make shards, stop on request and die with their parent.

The shard is the unit of work, retry, resume and logging. Workers poll for a stop request between rows, so SIGTERM and
SIGINT end a job within the time of one row. A killed parent takes its workers with it, and a killed worker the others.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_handles
from multiprocessing.synchronize import Event
from typing import TypeVar

from hms_dist.core.errors import JobError, Stopped
from hms_dist.core.plugins import load_plugins, loaded_plugins
from hms_dist.jobs.stop_flag import Flag, raised_by

Task = TypeVar("Task")
Result = TypeVar("Result")


GRACE_S = 2.0
"""Seconds for workers to stop by themselves; one that is still importing does not react to signals."""
POLL_S = 0.2
"""Seconds between two polls for a signal."""
ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a job to stop."""
STOPPED = "stopped; rerun the same command to continue"

_stop: Flag | Event = Flag()


def check_stop() -> None:
    """Raise Stopped if the job was asked to stop. Call it between rows."""
    _raise_if_set(_stop)


def run_jobs(make: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Make every task, `workers` at a time; yield results as they finish.

    SIGTERM and SIGINT raise Stopped after the running tasks have stopped. Closing the iterator starts no new task and
    waits for the running ones. Raises JobError if a worker was killed.
    """
    asked = Flag()
    with raised_by(asked, *ENDING):
        if workers == 1 or len(tasks) < 2:
            _begin(asked)
            try:
                for task in tasks:
                    check_stop()
                    yield make(task)
            finally:
                _begin(Flag())
        else:
            yield from _in_processes(make, tasks, workers, asked)
    _raise_if_set(asked)


def run_apart(make: Callable[[Task], Result], task: Task) -> Result:
    """Make one task in a separate process, so that its imports and memory are released.

    Signals and kills are handled as by `run_jobs`.
    """
    asked = Flag()
    with raised_by(asked, *ENDING):
        (result,) = _in_processes(make, [task], 1, asked)
    _raise_if_set(asked)
    return result


def _in_processes(make: Callable[[Task], Result], tasks: Sequence[Task], workers: int, asked: Flag) -> Iterator[Result]:
    """Submit no more tasks than there are workers, so that none is queued when a stop comes."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)), context, initializer=_begin_worker, initargs=(stop, list(loaded_plugins()))
    )
    request = _Request(asked, stop, pool)
    waiting = iter(tasks)
    running: set[Future[Result]] = set()
    try:
        running |= {pool.submit(make, task) for _, task in zip(range(workers), waiting, strict=False)}
        while running:
            done, running = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            request.pass_on()
            for future in done:
                yield future.result()
            if not asked.is_set():
                running |= {pool.submit(make, task) for _, task in zip(done, waiting, strict=False)}
    except BrokenProcessPool as error:
        _kill_workers(pool)  # they may wait forever for a lock of the pool that the killed worker held
        if asked.is_set():
            raise Stopped(STOPPED) from error
        raise JobError("a worker process was killed, possibly out of memory; rerun with fewer --workers") from error
    finally:
        while not all(future.done() for future in running):  # after an error, or after the iterator was closed
            wait(running, timeout=POLL_S)
            request.pass_on()
        pool.shutdown(wait=True, cancel_futures=True)


class _Request:
    """Forwards a stop request to the workers and waits for them at most GRACE_S."""

    def __init__(self, asked: Flag, stop: Event, pool: ProcessPoolExecutor) -> None:
        self._asked, self._stop, self._pool = asked, stop, pool
        self._passed_on_at: float | None = None

    def pass_on(self) -> None:
        """Call regularly while workers are running."""
        if not self._asked.is_set():
            return
        if self._passed_on_at is None:
            self._stop.set()
            self._passed_on_at = time.monotonic()
        elif time.monotonic() - self._passed_on_at > GRACE_S:
            _kill_workers(self._pool)


def _raise_if_set(flag: Flag | Event) -> None:
    if flag.is_set():
        raise Stopped(STOPPED)


def _kill_workers(pool: ProcessPoolExecutor) -> None:
    """Kill workers immediately; unfinished tasks are redone. Python 3.14's executor has a method for this."""
    for process in list((pool._processes or {}).values()):
        process.kill()


def _begin(stop: Flag | Event) -> None:
    global _stop  # noqa: PLW0603 - one flag per process, set before its first task
    _stop = stop


def _begin_worker(stop: Event, plugins: Sequence[str]) -> None:
    """Leave signals to the parent, which sets the flag; exit if the parent is gone. Load the parent's plug-ins."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    load_plugins(*plugins)
    _begin(stop)


def _die_with(sentinel: int) -> None:
    wait_for_handles([sentinel])
    os._exit(1)
