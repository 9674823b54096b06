"""Stop requests: SIGTERM, or a file `stop` in the run folder, as a batch script's trap writes it.

torchrun dies of SIGUSR1 and leaves its ranks running, so a warning from the scheduler comes as that file. Launchers
forward SIGTERM, and kill after 30 seconds. Ranks agree on the step at which they stop (`train.ranks.step_result`).
"""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from hms_dist import BEGAN_AS
from hms_dist.core.logging import LOG
from hms_dist.jobs.stop_flag import Flag, raised_by

STOP_NAME = "stop"
"""`touch RUN/stop` stops a run after its next step, with a checkpoint."""
LOOK_EVERY_S = 1.0
"""Seconds between two checks for the file."""
SAVE_S = 20.0
"""Seconds for a rank to save a checkpoint after its launcher died."""


class StopRequest:
    """Whether this rank was asked to stop. Signals only set a flag."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STOP_NAME
        self._flag = Flag()
        self._signals = raised_by(self._flag, signal.SIGTERM)
        self._looked_s = 0.0
        self.on_forced_end: Callable[[str], None] = lambda message: None
        """Called with the reason, from another thread, when this rank is ended unsaved; does nothing by default."""

    def __enter__(self) -> "StopRequest":
        self._signals.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._signals.__exit__(None, None, None)

    def ask(self) -> None:
        """Request a stop from within this process; any thread may."""
        self._flag.set()

    def asked(self) -> bool:
        """True after the first request; checks for the file at most once in LOOK_EVERY_S."""
        now = time.monotonic()
        if not self._flag.is_set() and now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now
            if self._path.exists():
                self._flag.set()
        return self._flag.is_set()


def die_with_launcher() -> None:
    """End this process as soon as its launcher is gone: a killed torchrun would leave its ranks running.

    Does nothing for a process without a launcher.
    """
    _when_launcher_is_gone(_die)


def stop_with_launcher(stop: StopRequest) -> None:
    """Ask this rank to stop when its launcher is gone, and end it SAVE_S later if it is still running.

    torchrun dies of a second SIGTERM while its ranks still save after the first, or before it forwards one. Does
    nothing for a process without a launcher.
    """
    _when_launcher_is_gone(lambda: _stop_or_die(stop))


def _when_launcher_is_gone(react: Callable[[], None]) -> None:
    if not ({"RANK", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"} & set(os.environ)):
        return
    began, parent = BEGAN_AS
    if began != os.getpid():  # a fork of the process that imported the package
        parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK_EVERY_S)
        react()

    threading.Thread(target=watch, name="launcher-watch", daemon=True).start()


def _die() -> None:
    try:
        LOG.warning("the launcher is gone; this rank ends")
    finally:
        os._exit(1)


def _stop_or_die(stop: StopRequest) -> None:
    try:
        stop.ask()
        LOG.warning("the launcher is gone; this rank stops at its next step, within %g s", SAVE_S)
        time.sleep(SAVE_S)
        message = (
            f"the launcher is gone, and the rank did not stop within {SAVE_S:g} s; rerun the same command to continue"
        )
        LOG.error("%s", message)
        stop.on_forced_end(message)
    finally:
        os._exit(1)
