"""Child processes that never outlive the process that started them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from hms_dist.core.errors import Stopped
from hms_dist.jobs import die_with_parent


@contextmanager
def launched(command: Sequence[str], output: IO[Any] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command as a child process.

    SIGTERM is forwarded to the child. On Linux the child also receives SIGTERM if this process dies, even by SIGKILL.
    On an exception it is stopped and waited for. `output`: file for its output and errors; None: those of this process.
    Raises Stopped after the child has ended if SIGTERM came.
    """
    errors = None if output is None else subprocess.STDOUT
    process = subprocess.Popen(_dying_with_this(command), stdout=output, stderr=errors)
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
        raise Stopped("stopped as asked; rerun the same command to continue")


def _dying_with_this(command: Sequence[str]) -> list[str]:
    """Wrap the command, on Linux, so that it does not outlive this process."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", die_with_parent.__file__, str(os.getpid()), *command]
