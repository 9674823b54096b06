"""Exceptions that end in one line instead of a traceback."""


class UserError(Exception):
    """Bad input or configuration.

    The message is one line: where (file, row or option), what was expected, what was found and what
    to do. The command line prints it without a traceback and exits with 2.
    """


class JobError(Exception):
    """A job that failed for no mistake of the user's; one line, exit code 1. What was finished stands."""


class Stopped(JobError):
    """A job that was asked to stop; the same command does the rest."""


def one_of(name: str, value: str, valid: "list[str] | tuple[str, ...] | dict[str, object]") -> str:
    """Return `value` if it is one of `valid`; raise UserError listing the valid ones otherwise."""
    if value not in valid:
        raise UserError(f"{name}: unknown '{value}'; one of: {', '.join(valid)}")
    return value
