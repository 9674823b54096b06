"""Exceptions that end a command with one line instead of a traceback."""

import difflib
import errno
import os
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""Characters that would break the line or control the terminal when a message quotes a file or a library."""

_MOST = 4000
"""Longest message, in characters: quoted text of a damaged file must not fill the screen."""

OTHER_TORCH = "operator torchvision::"
"""In the message of an import of torchvision that was built for another torch (`core.patch_torchvision`)."""


def one_line(text: str) -> str:
    """Return `text` as one line that any stream can encode."""
    line = _BREAKS.sub(" ", text).encode(errors="backslashreplace").decode()
    return line if len(line) <= _MOST else f"{line[:_MOST]}..."


class _OneLineError(Exception):
    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UserError(_OneLineError):
    """Invalid input or configuration; exit code 2, no traceback.

    The message is one line: where (file, row or option), what was expected, what was found and what to do.
    """


class JobError(_OneLineError):
    """A job failed although its input is valid; one line, exit code 1. Finished work is kept."""


class Stopped(JobError):
    """A job stopped on request. The same command continues it."""


def exit_status(error: BaseException) -> tuple[int, str] | None:
    """Return the exit code and message of an expected exception, or None for an internal error."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, JobError):
        return 1, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 1, "interrupted; rerun the same command to continue"
    if isinstance(error, RuntimeError) and OTHER_TORCH in str(error):
        return 2, (
            f"torchvision does not match this torch ({first_line(error)}); install both from one index, or run "
            "python -m hms_dist.core.patch_torchvision once"
        )
    if _is_out_of_memory(error):
        return 1, f"out of memory ({first_line(error)}); ask for more, raise a limit (ulimit -v), or use fewer workers"
    return _exit_status_of_system(error) if isinstance(error, OSError) else None


def _exit_status_of_system(error: OSError) -> tuple[int, str] | None:
    """Return exit code and message as `exit_status`, for an OSError."""
    where = error.filename or ("/dev/shm" if _is_full("/dev/shm") else "writing")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 1, f"{where}: no space left on the disk; free some and rerun the same command"
    if error.errno == errno.EFBIG and error.strerror == os.strerror(errno.EFBIG):
        return 1, f"{where}: larger than the limit on the size of files; raise it (ulimit -f)"
    if error.filename is None:
        return None
    return 2, one_line(f"{where}: {error.strerror}; check the path and its permissions")


def _is_full(folder: str) -> bool:
    """Whether a file system is full. Semaphores live in /dev/shm, and their errors carry no file name."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free == 0
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Python, its threads and processes, and libraries each raise something different."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error)
    if isinstance(error, RuntimeError):
        return "can't start new thread" in text or "not enough memory" in text
    return isinstance(error, ImportError) and ("failed to map segment" in text or "Cannot allocate memory" in text)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error message, or the exception's type if it has none."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def suggestion(given: str, valid: Sequence[str]) -> str:
    """Return `did you mean x? ` for valid names that end in `given` or are spelled similarly; empty if there is
    none."""
    last = given.removeprefix("--")
    near = [name for name in valid if name.endswith(f".{last}")] or difflib.get_close_matches(given, valid, n=1)
    return f"did you mean {' or '.join(near[:3])}? " if near else ""


def one_of(name: str, value: str, valid: "list[str] | tuple[str, ...] | dict[str, object]", hint: str = "") -> str:
    """Return `value`. Raises UserError, listing the valid names and then the hint, if it is not in `valid`."""
    if value not in valid:
        raise UserError(f"{name}: unknown '{value}'; one of: {', '.join(valid)}{hint}")
    return value
