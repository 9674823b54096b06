"""Processes that import into one folder together.

Each holds a lease of its own from its beginning to its end, the lease of each recording while it imports that one, and
for a moment the lock of the key, to plan and to write the tables.
"""

import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hms_dist.core.logging import LOG
from hms_dist.imports.job import ImportResult, ImportTask
from hms_dist.imports.key import Key
from hms_dist.jobs.lease import HEARTBEAT_S, Lease, LeaseHeld, acquire, is_held, read_owner

POLL_S = 0.2
"""Seconds between two looks at what other processes hold."""


@contextmanager
def locked(key: Key) -> Iterator[None]:
    """Hold the lock of the key; wait for other holders."""
    began, named = time.monotonic(), False
    while True:
        try:
            with acquire(key.lock):
                yield
            return
        except LeaseHeld as other:
            if not named and time.monotonic() - began > HEARTBEAT_S:
                LOG.info("waiting: %s", other)
                named = True
        time.sleep(POLL_S)


@contextmanager
def joined(key: Key) -> Iterator[tuple[Lease, list[str]]]:
    """Hold a lease of this process; yield it and the names of the other processes that import into the folder."""
    others = []
    for path in sorted(key.imports.glob("*.claim")):
        if is_held(path):
            others.append(str(read_owner(path)))
        else:
            path.unlink(missing_ok=True)
    with acquire(key.imports / f"{uuid.uuid4().hex}.claim") as own:
        yield own, others


def import_shared(
    key: Key, tasks: Sequence[ImportTask], run: Callable[[Sequence[ImportTask]], Iterator[ImportResult]]
) -> Iterator[ImportResult]:
    """Import recordings with `run`; yield results as they finish, each once.

    Recordings that another process imports are waited for. Those that it leaves open, because it ended or has rejected
    them, are imported here.
    """
    todo = list(tasks)
    held: dict[int, ImportTask] = {}
    while todo or held:
        by_number = {task.number: task for task in todo}
        for result in run(todo) if todo else ():
            if result.is_held:
                held[result.number] = by_number[result.number]
            else:
                yield result
        free = [number for number in held if not is_held(key.file_lease(number))]
        if held and not free:
            time.sleep(POLL_S)
        todo = [held.pop(number) for number in free]
