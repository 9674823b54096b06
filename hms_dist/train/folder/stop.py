"""Being asked to stop: SIGTERM, or a file `stop` in the run folder, as a batch script's trap writes it.

torchrun dies of SIGUSR1 and leaves its ranks running, so a warning from the scheduler comes as that file; SIGTERM is
passed on by launchers, which kill after 30 seconds. Ranks agree on the step at which they stop (`train.ranks.outcome`).
"""

import os
import signal
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

STOP_NAME = "stop"
"""`touch RUN/stop` ends a run at its next step, saved."""
LOOK_EVERY_S = 1.0
"""Seconds between two looks for the file."""
SAVE_S = 20.0
"""Seconds that a rank has for its last save once its launcher is gone."""


class StopRequest:
    """Whether this rank was asked to stop. A signal raises a flag and does nothing else, however often it comes."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STOP_NAME
        self._flag = threading.Event()
        self._looked_s = 0.0
        self._before: Any = None

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: self._flag.set())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def ask(self) -> None:
        """Ask from within this process; any thread may."""
        self._flag.set()

    def asked(self) -> bool:
        """True from the first request on; looks for the file at most once in LOOK_EVERY_S."""
        now = time.monotonic()
        if not self._flag.is_set() and now - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now
            if self._path.exists():
                self._flag.set()
        return self._flag.is_set()


def die_with_launcher(stop: StopRequest | None = None) -> None:
    """End this rank when its launcher is gone: a killed torchrun would leave ranks that nobody collects.

    With `stop` the rank is asked to stop and has SAVE_S to leave saved: torchrun dies of a second SIGTERM while its
    ranks still save after the first, or before it has passed one on. Does nothing for a process that no launcher
    started.
    """
    if not ({"RANK", "LOCAL_RANK", "ACCELERATE_MIXED_PRECISION"} & set(os.environ)):
        return
    parent = os.getppid()
    threading.Thread(target=_watch, args=(parent, stop), name="launcher-watch", daemon=True).start()


def _watch(parent: int, stop: StopRequest | None) -> None:
    while os.getppid() == parent:
        time.sleep(LOOK_EVERY_S)
    if stop is not None:
        stop.ask()
        time.sleep(SAVE_S)
    os._exit(1)
