"""Exceptions that end in one line instead of a traceback."""

import errno
import os
import re
import shutil
from contextlib import suppress

_BREAKS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What would break a line, or steer a terminal, in a message that quotes a file or a library."""

_MOST = 4000
"""Characters of a message, so that a damaged file's long text does not fill the screen."""


def one_line(text: str) -> str:
    """`text` as one line that any stream can write."""
    line = _BREAKS.sub(" ", text).encode(errors="backslashreplace").decode()
    return line if len(line) <= _MOST else f"{line[:_MOST]}..."


class _OneLineError(Exception):
    def __init__(self, message: str = "") -> None:
        super().__init__(one_line(message))


class UserError(_OneLineError):
    """Bad input or configuration.

    The message is one line: where (file, row or option), what was expected, what was found and what
    to do. The command line prints it without a traceback and exits with 2.
    """


class JobError(_OneLineError):
    """A job that failed for no mistake of the user's; one line, exit code 1. What was finished stands."""


class Stopped(JobError):
    """A job that was asked to stop; the same command does the rest."""


def verdict(error: BaseException) -> tuple[int, str] | None:
    """Exit code and line of an exception that the user can understand; None for a fault of ours."""
    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, JobError):
        return 1, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 1, "interrupted; rerun the same command to continue"
    if _is_out_of_memory(error):
        return 1, f"out of memory ({first_line(error)}); ask for more, raise a limit (ulimit -v), or use fewer workers"
    return _verdict_of_system(error) if isinstance(error, OSError) else None


def _verdict_of_system(error: OSError) -> tuple[int, str] | None:
    """The same for an error of the operating system."""
    where = error.filename or ("/dev/shm" if _is_full("/dev/shm") else "writing")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 1, f"{where}: no space left on the disk; free some and rerun the same command"
    if error.errno == errno.EFBIG and error.strerror == os.strerror(errno.EFBIG):
        return 1, f"{where}: larger than the limit on the size of files; raise it (ulimit -f)"
    if error.filename is None:
        return None
    return 2, one_line(f"{where}: {error.strerror}; check the path and its rights")


def _is_full(folder: str) -> bool:
    """Whether a folder's file system has no room; locks between processes live in /dev/shm, and fail without a name."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free == 0
    return False


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether the system gave no memory: Python, its threads, processes and libraries each say it differently."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    text = str(error)
    if isinstance(error, RuntimeError):
        return "can't start new thread" in text or "not enough memory" in text
    return isinstance(error, ImportError) and ("failed to map segment" in text or "Cannot allocate memory" in text)


def first_line(error: BaseException) -> str:
    """What an exception of others says, in one line; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_of(name: str, value: str, valid: "list[str] | tuple[str, ...] | dict[str, object]") -> str:
    """Return `value` if it is one of `valid`; raise UserError listing the valid ones otherwise."""
    if value not in valid:
        raise UserError(f"{name}: unknown '{value}'; one of: {', '.join(valid)}")
    return value
