"""Exceptions that end in one line instead of a traceback."""

import errno
import re

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
    if isinstance(error, KeyboardInterrupt | MemoryError):
        short = f"out of memory ({first_line(error)}); ask for less, or use a machine with more"
        return 1, "interrupted; rerun the same command to go on" if isinstance(error, KeyboardInterrupt) else short
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 1, f"{error.filename or 'writing'}: no space left on the disk; free some and rerun the same command"
    if isinstance(error, OSError) and error.filename is not None:
        return 2, one_line(f"{error.filename}: {error.strerror}; check the path and its rights")
    return None


def first_line(error: BaseException) -> str:
    """What an exception of others says, in one line; its kind if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def one_of(name: str, value: str, valid: "list[str] | tuple[str, ...] | dict[str, object]") -> str:
    """Return `value` if it is one of `valid`; raise UserError listing the valid ones otherwise."""
    if value not in valid:
        raise UserError(f"{name}: unknown '{value}'; one of: {', '.join(valid)}")
    return value
