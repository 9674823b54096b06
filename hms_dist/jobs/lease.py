"""Leases on files, so that jobs on a shared file system do not make the same file.

A lease is a small file next to the file being made, created exclusively. Its owner touches it every few seconds. A
lease without a heartbeat has expired and may be taken over from any node. Ages are measured with the file server's
clock only: the lease's modification time against that of a file touched now.

A requeued batch job takes over the leases of its earlier attempt even before they expire: that attempt ran on a node
that the scheduler considers lost, and may still be running there.
"""

import errno
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
"""A lease that was not touched for this many seconds has expired."""


class LeaseHeld(Exception):
    """The lease has a live owner; the message names it."""


@dataclass(frozen=True)
class Owner:
    """The owner of a lease."""

    host: str
    machine: str
    """Boot id and process namespace of `pid`; equal for two processes that can see each other."""
    pid: int
    job: str
    """Batch job id; empty outside of a batch job."""
    nonce: str
    """Distinguishes this lease from all others, also of the same process."""
    attempt: int = 0
    """Number of times that the scheduler had restarted the job."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", job {self.job}" if self.job else "")


def myself() -> Owner:
    """Describe this process as an owner, with a fresh nonce."""
    given = os.environ.get("SLURM_RESTART_COUNT", "0")
    attempt = int(given) if given.isdecimal() else 0  # Slurm writes a number; anything else is not a restart count
    return Owner(socket.gethostname(), machine(), os.getpid(), job_of(os.environ), uuid.uuid4().hex, attempt)


def job_of(variables: Mapping[str, str]) -> str:
    """Return the batch job id from environment variables, such as 17, or 17_3 for an array task; empty outside of
    one."""
    array, task = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else variables.get("SLURM_JOB_ID", "")


def is_held(path: Path) -> bool:
    """Whether the lease file `path` has an owner that is alive or not yet known to be dead."""
    holder, age = read_owner(path), age_s(path)
    return holder is not None and age is not None and age < DEAD_AFTER_S and not _died_here(holder)


def is_superseded(path: Path) -> bool:
    """Whether a later attempt of this process's own batch job holds the lease file `path`."""
    holder = read_owner(path)
    return holder is not None and _is_earlier(myself(), holder)


@contextmanager
def acquire(path: Path) -> Iterator["Lease"]:
    """Hold the lease file `path`: a thread keeps it alive, and it is removed at the end.

    An expired lease is taken over. Raises LeaseHeld if its owner is alive.
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
    """A lease held by this process."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path, self.owner = path, owner
        self._ended = threading.Event()
        self._beat = threading.Thread(target=self._keep_alive, name=f"lease-{path.name}", daemon=True)

    def start(self) -> None:
        """Start the heartbeat."""
        self._beat.start()

    def is_mine(self) -> bool:
        """False if another process took the lease over; its work must then not be published."""
        return read_owner(self.path) == self.owner

    def stop(self) -> None:
        """Stop the heartbeat, and remove the file if this process still owns it."""
        self._ended.set()
        self._beat.join()
        if self.is_mine():
            self.path.unlink(missing_ok=True)

    def _keep_alive(self) -> None:
        """Touch the file until another process owns it. If the file is unreachable, or is being restored, try again at
        the next beat."""
        while not self._ended.wait(HEARTBEAT_S):
            with suppress(OSError):
                holder = read_owner(self.path)
                if holder == self.owner:
                    os.utime(self.path)
                elif holder is not None and holder.nonce:
                    return


def await_expiry(path: Path) -> None:
    """Wait until a lease is free or has expired. Raises LeaseHeld as soon as its owner touches it."""
    _date_back(path)
    holder, age = read_owner(path), age_s(path)
    while age is not None and age < DEAD_AFTER_S and not (holder and _is_over(holder)):
        time.sleep(HEARTBEAT_S / 10)
        before, age = age, age_s(path)
        if age is not None and age < before:
            raise LeaseHeld(f"{holder} is working on it")


def read_owner(path: Path) -> Owner | None:
    """Read the owner of a lease; None if there is none. A truncated lease has an unknown owner."""
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
    """Seconds since a file was touched, by the file server's clock (by the local clock if its folder is not writable).

    None if the file is missing.
    """
    try:
        return _now(path.parent) - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _now(folder: Path) -> float:
    """Read the file server's clock: the modification time of a file touched now."""
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
    """Create the lease file or take over an expired one; at most one contender keeps it (`Lease.is_mine`)."""
    while not _create(path, owner):
        holder = read_owner(path)
        if holder is None:
            continue
        _date_back(path)
        age = age_s(path)
        if age is None:
            continue
        if age < DEAD_AFTER_S and not _is_over(holder):
            raise LeaseHeld(f"{holder} holds it (last heartbeat {max(age, 0):.0f} s ago)")
        _remove(path, holder)


def _date_back(path: Path) -> None:
    """Set a modification time in the future (the server's clock was set back) to the present.

    A live owner touches the lease again within seconds; a dead owner's lease expires from now on.
    """
    age = age_s(path)
    if age is not None and age < -HEARTBEAT_S:
        with suppress(OSError):  # the lease of another user, who alone may touch it
            os.utime(path)


def _create(path: Path, owner: Owner) -> bool:
    """Create the lease file; return False if it exists.

    A whole file is linked to the name: a contender that read a lease while it was being written would put it back
    without its owner. File systems without links get the name first and the content a moment later.
    """
    whole, text = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new"), json.dumps(asdict(owner))
    try:
        whole.write_text(text)
        os.link(whole, path)
    except FileExistsError:
        return whole.stat().st_nlink > 1  # linked by a first try of which a file server lost the answer
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_in_place(path, text)
    finally:
        whole.unlink(missing_ok=True)
    return True


def _create_in_place(path: Path, text: str) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return True


def _remove(path: Path, holder: Owner) -> None:
    """Remove an expired lease. If another contender was faster and its lease was moved instead, put it back."""
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
        _create(path, found)  # if a third contender was faster still, the owner notices before it publishes


def _is_over(holder: Owner) -> bool:
    """Whether the lease can be taken over without waiting for a heartbeat."""
    return _died_here(holder) or _is_earlier(holder, myself())


def _is_earlier(one: Owner, other: Owner) -> bool:
    """Whether `one` is an attempt of `other`'s batch job that the scheduler has given up."""
    return one.job != "" and one.job == other.job and one.attempt < other.attempt


def _died_here(holder: Owner) -> bool:
    """Whether the owner's process would be visible here and is gone, so that no heartbeat can come."""
    return holder.machine != "" and holder.machine == machine() and has_ended(holder.pid)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""Errors of file systems without hard links."""
