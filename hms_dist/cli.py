"""`hms-dist <command>`: the command line. `commands.table` lists the commands and their modules."""

import io
import os
import sys
from collections.abc import Sequence

from hms_dist.commands.table import COMMANDS, command_of
from hms_dist.core.errors import exit_status


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Exit code 0; 2 for user errors (one line on standard error); 1 for a failed job."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # quoted text of a file may not be encodable
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not words or words[0] in ("-h", "--help", "--version"):
        print(_version() if "--version" in words[:1] else _usage())
        return 0
    try:
        module, command = command_of(words[0], words[1:])
        _start_log()
        module.run(command)
        return 0
    except BrokenPipeError:  # the reader of the output closed it, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        status = exit_status(error)
        if status is None:
            raise
        if words[0] != "train" or _is_news(status[1]):
            print(f"hms-dist {words[0]}: {status[1]}", file=sys.stderr)
        return status[0]


def _start_log() -> None:
    from hms_dist.core.logging import start_log

    start_log(int(os.environ.get("RANK", "0")))


def _version() -> str:
    from hms_dist import __version__

    return f"hms-dist {__version__}"


def _is_news(line: str) -> bool:
    """Whether no other rank of a training run prints this: a failure of one rank alone carries its number."""
    return os.environ.get("RANK", "0") == "0" or line.startswith("rank ")


def _usage() -> str:
    lines = [f"  {name:<12}{text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hms-dist <command> [--config NAME] [--option value ...]",
            "",
            "commands:",
            *lines,
            "",
            "hms-dist <command> --help lists a command's options, --help_all explains each with its unit and default.",
            "--plugins MODULE ... adds panels, augmentations, losses, selections and models of your own.",
            "NAME is a recipe's, a path has a slash or ends in .yaml; hms-dist recipes lists the names.",
            "Several GPUs: accelerate launch -m hms_dist train --config public_baseline --shards SHARDS --out RUN",
        ]
    )
