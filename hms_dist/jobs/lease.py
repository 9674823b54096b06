"""Leases: who is making a file right now, so that jobs work side by side on one file system.

A lease is a small file beside what is being made, created exclusively. Its owner touches it every few seconds; a
lease whose heartbeat has stopped is dead and may be taken over, from any node. Times are compared on the file
server's clock alone: a lease's last touch against a file that was touched just now.

A batch job that its scheduler has started again takes over what its earlier attempt holds, heartbeat or not: that one
ran on a node that was given up for lost, and may be running there still.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from hms_dist.core.alive import has_ended, machine
from hms_dist.core.files import read_json

HEARTBEAT_S = 5.0
"""Seconds between two touches of a lease."""
DEAD_AFTER_S = 30.0
"""A lease untouched for so many seconds is dead."""


class LeaseHeld(Exception):
    """Somebody alive holds the lease; the message says who."""


@dataclass(frozen=True)
class Owner:
    """Who holds a lease."""

    host: str
    machine: str
    """Boot and process namespace in which `pid` counts; equal for two processes that can see each other."""
    pid: int
    job: str
    """Batch job, or empty outside of one."""
    nonce: str
    """Tells this lease from any other, also of the same process."""
    attempt: int = 0
    """Times that the scheduler had started the job before."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")


def myself() -> Owner:
    """This process as an owner, with a fresh nonce."""
    given = os.environ.get("SLURM_RESTART_COUNT", "0")
    attempt = int(given) if given.isdecimal() else 0  # Slurm writes a number; anything else is no restart of its
    return Owner(socket.gethostname(), machine(), os.getpid(), job_of(os.environ), uuid.uuid4().hex, attempt)


def job_of(variables: Mapping[str, str]) -> str:
    """The batch job that environment variables tell of: 17, or 17_3 for a task of an array; empty outside of one."""
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


def is_held(path: Path) -> bool:
    """Whether somebody alive, or not known to be dead yet, holds the lease file `path`."""
    holder, age = read_owner(path), age_s(path)
    return holder is not None and age is not None and age < DEAD_AFTER_S and not _died_here(holder)


def is_superseded(path: Path) -> bool:
    """Whether a later attempt of this process's own batch job holds the lease file `path`."""
    holder = read_owner(path)
    return holder is not None and _is_earlier(myself(), holder)


@contextmanager
def acquire(path: Path) -> Iterator["Lease"]:
    """Hold the lease file `path`, kept alive by a thread, and remove it at the end.

    A dead owner's lease is taken over. Raises LeaseHeld if its owner is alive.
    """
    owner = myself()
    _acquire(path, owner)
    held = Lease(path, owner)
    held.start()
    try:
        yield held
    finally:
        held.stop()


class Lease:
    """A lease that this process holds."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name=f"lease-{path.name}", daemon=True)

    def start(self) -> None:
        """Begin to touch the file."""
        self._beat.start()

    def is_mine(self) -> bool:
        """False if somebody took this process for dead and took over; then it must not publish its work."""
        return read_owner(self.path) == self.owner

    def stop(self) -> None:
        """Stop touching, and remove the file if it is still ours."""
        self._ended.set()
        self._beat.join()
        if self.is_mine():
            self.path.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        """Touch the file until it is surely another's: one that cannot be reached, or is being put back, is tried again
        at the next beat."""
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(OSError):
                holder = read_owner(self.path)
                if holder == self.owner:
                    os.utime(self.path)
                elif holder is not None and holder.nonce:
                    return


def await_expiry(path: Path) -> None:
    """Wait until a lease is free or dead. Raises LeaseHeld as soon as its owner touches it."""
    _date_back(path)
    holder, age = read_owner(path), age_s(path)
    while age is not None and age < DEAD_AFTER_S and not (holder and _is_over(holder)):
        time.sleep(HEARTBEAT_S / 10)
        before, age = age, age_s(path)
        if age is not None and age < before:
            raise LeaseHeld(f"{holder} is at work on it")


def read_owner(path: Path) -> Owner | None:
    """Who holds a lease; None if nobody does. A lease cut short while it was written is held by nobody known."""
    try:
        values = read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        values = None
    values = {"attempt": 0, **values} if isinstance(values, dict) else {}
    kinds = {field.name: field.type for field in fields(Owner)}
    if any(type(values.get(name)) is not kind for name, kind in kinds.items()) or not 0 <= values["pid"] < 2**31:
        return Owner("an unknown host", "", 0, "", "")
    return Owner(**{name: values[name] for name in kinds})


def age_s(path: Path) -> float | None:
    """Seconds since a file was touched, by the file server's clock, or by ours if we may not write beside it.

    None if it is gone.
    """
    try:
        return _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _now(folder: Path) -> float:
    """The file server's clock: the time of a file that was touched just now."""
    probe = folder / f".{uuid.uuid4().hex}.now"
    try:
        probe.touch()
    except FileNotFoundError:
        raise
    except OSError:
        return time.time()
    now = probe.stat().st_mtime
    probe.unlink()
    return now


def _acquire(path: Path, owner: Owner) -> None:
    """Create the lease file, or take over a dead one; at most one contender keeps it (`Lease.is_mine`)."""
    while not _create(path, owner):
        holder = read_owner(path)
        if holder is None:
            continue
        _date_back(path)
        age = age_s(path)
        if age is None:
            continue
        if age < DEAD_AFTER_S and not _is_over(holder):
            raise LeaseHeld(f"{holder} holds it (last sign of life {max(age, 0):.0f} s ago)")
        _remove(path, holder)


def _date_back(path: Path) -> None:
    """Give a lease that was touched in the future the present time: the file server's clock was set back.

    A living owner touches it again within seconds; a dead one's lease expires from now on, not in that future.
    """
    age = age_s(path)
    if age is not None and age < -HEARTBEAT_S:
        with suppress(OSError):  # another user's lease, which only they can touch
            os.utime(path)


def _create(path: Path, owner: Owner) -> bool:
    """Make the lease file if there is none; False if there is one."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(owner), file)
    return True


def _remove(path: Path, holder: Owner) -> None:
    """Remove a dead lease. If another contender was quicker, the lease that was caught instead is put back."""
    if read_owner(path) != holder:
        return
    caught = path.with_name(f".{path.name}.{uuid.uuid4().hex}.dead")
    try:
        path.rename(caught)
    except FileNotFoundError:
        return
    found = read_owner(caught)
    caught.unlink()
    if found is not None and found != holder:
        _create(path, found)  # if a third was quicker still, the one caught notices before it publishes


def _is_over(holder: Owner) -> bool:
    """True if no heartbeat has to be waited for."""
    return _died_here(holder) or _is_earlier(holder, myself())


def _is_earlier(one: Owner, other: Owner) -> bool:
    """True if `one` belongs to an attempt of `other`'s batch job that the scheduler has given up."""
    return one.job != "" and one.job == other.job and one.attempt < other.attempt


def _died_here(holder: Owner) -> bool:
    """True if the owner was a process that would be visible here and no longer runs: no heartbeat to wait for."""
    return holder.machine != "" and holder.machine == machine() and has_ended(holder.pid)
