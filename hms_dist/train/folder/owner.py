"""Owner of a run folder: the job whose main rank holds its lease, on any node."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hms_dist.core.errors import JobError, UserError
from hms_dist.core.logging import LOG
from hms_dist.jobs.lease import (
    DEAD_AFTER_S,
    Lease,
    LeaseHeld,
    acquire,
    await_expiry,
    is_held,
    is_superseded,
    read_owner,
)

LEASE_NAME = ".claim"


class Superseded(JobError):
    """Another job took over the run folder after this one's lease expired; nothing more may be written."""


class Ownership:
    """The right to write into a run folder; only the main rank has and needs it."""

    def __init__(self, folder: Path, held: Lease | None) -> None:
        self._folder, self._held = folder, held

    def is_lost(self) -> bool:
        """Whether another job, or a later attempt of this one, owns the folder now."""
        if self._held is not None:
            return not self._held.is_mine()
        return is_superseded(self._folder / LEASE_NAME)

    def check(self) -> None:
        """Raise Superseded if the folder has another owner now. Call before every write."""
        if self._held is not None and self.is_lost():
            raise self._superseded()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Convert any exception of a run that has lost its folder to Superseded, which is not recorded in the
        folder."""
        try:
            yield
        except Exception as error:
            if self.is_lost():
                raise self._superseded() from error
            raise

    def _superseded(self) -> Superseded:
        return Superseded(f"{self._folder}: another job took this run over; this one stops and writes nothing more")


@contextmanager
def owned(folder: Path, *, is_main: bool) -> Iterator[Ownership]:
    """Hold the lease of the run folder `folder`, created if missing, on the main rank.

    An expired lease is waited for and taken over. Raises UserError naming an owner that is alive.
    """
    if not is_main:
        yield Ownership(folder, None)
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LEASE_NAME
    if is_held(path):
        LOG.warning("%s: held by %s; waiting up to %.0f s for a heartbeat", folder, read_owner(path), DEAD_AFTER_S)
    try:
        await_expiry(path)
        with acquire(path) as held:
            yield Ownership(folder, held)
    except LeaseHeld as error:
        raise UserError(f"{folder}: {error}; wait for that run to end, or choose another --out") from error
