"""Sequential start of training runs, each as a separate process."""

import time
from collections.abc import Sequence
from pathlib import Path

from hms_dist.core.errors import Stopped
from hms_dist.core.logging import LOG
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.grid.run_plan import PlannedRun, check_data, check_finished
from hms_dist.jobs.lease import DEAD_AFTER_S, LeaseHeld, await_expiry
from hms_dist.jobs.processes import launched
from hms_dist.train.folder.owner import LEASE_NAME


def await_free(folder: Path) -> None:
    """Wait, at most DEAD_AFTER_S, until a run folder has no owner: a run whose grid was killed shuts down.

    Raises Stopped naming an owner that stays.
    """
    ends = time.monotonic() + DEAD_AFTER_S
    while True:
        try:
            await_expiry(folder / LEASE_NAME)
            return
        except LeaseHeld as error:
            if time.monotonic() >= ends:
                raise Stopped(f"{folder}: {error}; rerun the same command once it has ended") from error


def run_all(runs: Sequence[PlannedRun], launch: LaunchConfig) -> list[str]:
    """Run unfinished runs one after another; return the folder and message of each that did not finish.

    A run that fails, or that another job is working on, does not prevent the next ones. Raises UserError as
    `check_data` and `check_finished`, Stopped as `launched`.
    """
    launch.command([])  # checked before any work
    check_finished(runs)
    check_data(runs)
    failed = []
    for number, run in enumerate(runs):
        if run.finished:
            LOG.info("%d of %d: %s is finished", number + 1, len(runs), run.out)
            continue
        LOG.info("%d of %d: %s", number + 1, len(runs), run.out)
        try:
            await_free(run.out)
        except Stopped as error:
            failed.append(str(error))
            continue
        with launched(launch.command(list(run.words))) as process:
            pass
        if not run.finished:
            failed.append(f"{run.out} ({run.message or f'exit code {process.returncode}'})")
    return failed
