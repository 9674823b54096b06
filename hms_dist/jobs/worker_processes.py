"""Running shard after shard in worker processes that stop when asked and die with their parent.

The unit of work, retry, resume and logging is a shard. A worker asks between rows whether to stop, so SIGTERM and
SIGINT end a job within a row's time; a killed parent takes its workers with it, a killed worker the others.
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
from hms_dist.jobs.stop_flag import Flag, raised_by

Task = TypeVar("Task")
Result = TypeVar("Result")


GRACE_S = 2.0
"""Seconds that workers get to stop by themselves; one that is still importing hears nothing."""
POLL_S = 0.2
"""Seconds between two looks at whether a signal came."""
ENDING = (signal.SIGTERM, signal.SIGINT)
"""Signals that ask a job to stop."""
STOPPED = "stopped; rerun the same command to continue"

_stop: Flag | Event = Flag()


def check_stop() -> None:
    """Call between rows. Raises Stopped when the job was asked to stop."""
    _raise_if_set(_stop)


def run_jobs(make: Callable[[Task], Result], tasks: Sequence[Task], workers: int) -> Iterator[Result]:
    """Make every task, `workers` at a time; yields results as they come.

    SIGTERM and SIGINT raise Stopped here once the running tasks have noticed. Closing the iterator starts no new
    task and waits for the running ones. Raises JobError if a worker was killed.
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
    """Make one task in a process of its own, so that what it imports and allocates is given back.

    Signals and kills are met as by `run_jobs`.
    """
    asked = Flag()
    with raised_by(asked, *ENDING):
        (result,) = _in_processes(make, [task], 1, asked)
    _raise_if_set(asked)
    return result


def _in_processes(make: Callable[[Task], Result], tasks: Sequence[Task], workers: int, asked: Flag) -> Iterator[Result]:
    """Hand out no more tasks than there are workers, so that a stop finds none waiting in a queue."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_begin_worker, initargs=(stop,))
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
        _kill_workers(pool)  # they may wait forever for a lock of the pool that the killed one held
        if asked.is_set():
            raise Stopped(STOPPED) from error
        raise JobError("a worker process was killed, for want of memory perhaps; rerun with fewer --workers") from error
    finally:
        while not all(future.done() for future in running):  # after an error, or closed
            wait(running, timeout=POLL_S)
            request.pass_on()
        pool.shutdown(wait=True, cancel_futures=True)


class _Request:
    """Passes a request to stop on to the workers, and does not wait for them longer than GRACE_S."""

    def __init__(self, asked: Flag, stop: Event, pool: ProcessPoolExecutor) -> None:
        self._asked, self._stop, self._pool = asked, stop, pool
        self._passed_on_at: float | None = None

    def pass_on(self) -> None:
        """Call every now and then while workers are at work."""
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
    """End workers at once; what they were making is redone. The executor offers this itself from Python 3.14 on."""
    for process in list((pool._processes or {}).values()):
        process.kill()


def _begin(stop: Flag | Event) -> None:
    global _stop  # noqa: PLW0603 - one flag a process, set before its first task
    _stop = stop


def _begin_worker(stop: Event) -> None:
    """Leave signals to the parent, which raises the flag; end at once if the parent is gone."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()
    _begin(stop)


def _die_with(sentinel: int) -> None:
    wait_for_handles([sentinel])
    os._exit(1)
