"""Starting training runs as processes of their own, and taking them along when this one has to go."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from hms_dist.claims import DEAD_AFTER_S, Taken, await_death
from hms_dist.errors import Stopped
from hms_dist.grid.plan import PlannedRun, check_data
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.run import LOG
from hms_dist.train.owner import CLAIM_NAME

_FAITHFUL = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Turns into the command that it is given, after asking Linux (PR_SET_PDEATHSIG) for SIGTERM when its parent dies."""


@contextmanager
def launched(command: Sequence[str], output: IO[Any] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A running command. SIGTERM to this process goes on to it; if this process dies, even by a kill, it is asked to
    stop (on Linux); on an exception it is stopped and waited for.

    `output`: file for its output and errors. None: those of this process. Raises Stopped, once the command has ended,
    if SIGTERM came.
    """
    errors = None if output is None else subprocess.STDOUT
    process = subprocess.Popen(_faithful(command), stdout=output, stderr=errors)
    asked = []

    def pass_on(number: int, _: Any) -> None:
        asked.append(number)
        process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield process
        process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:
        raise Stopped("stopped as asked; rerun the same command to go on")


def await_free(folder: Path) -> None:
    """Wait, DEAD_AFTER_S at most, while a run folder has an owner: a run whose grid was killed takes its leave."""
    ends = time.monotonic() + DEAD_AFTER_S
    while time.monotonic() < ends:
        with suppress(Taken):
            await_death(folder / CLAIM_NAME)
            return


def run_all(runs: Sequence[PlannedRun], launch: LaunchConfig) -> list[str]:
    """Run one after another what is not finished; for each that did not finish, its folder and what it says.

    A failed run does not keep the next ones from running. Raises UserError as `check_data`, Stopped as `launched`.
    """
    check_data(runs)
    failed = []
    for number, run in enumerate(runs):
        if run.finished:
            LOG.info("%d of %d: %s is finished", number + 1, len(runs), run.out)
            continue
        LOG.info("%d of %d: %s", number + 1, len(runs), run.out)
        await_free(run.out)
        with launched(launch.command(list(run.words))) as process:
            pass
        if not run.finished:
            failed.append(f"{run.out} ({run.message or f'exit code {process.returncode}'})")
    return failed


def _faithful(command: Sequence[str]) -> list[str]:
    """The command, on Linux such that it does not outlive this process."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _FAITHFUL, str(os.getpid()), *command]
