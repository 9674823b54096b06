"""`hms-dist <verb>`: the command line. `verbs` is the table of verbs; each verb lives beside what it does."""

import io
import os
import sys
from collections.abc import Sequence

from hms_dist.commands.table import COMMANDS, command_of
from hms_dist.core.errors import verdict


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb. Exit code 0; 2 for the user's mistakes (one line on standard error); 1 for a failed job."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a file may hold what no encoding can write
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    if words[0] == "--version":
        from hms_dist import __version__

        print(f"hms-dist {__version__}")
        return 0
    try:
        return _call(words[0], words[1:])
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except BaseException as error:
        known = verdict(error)
        if known is None:
            raise
        if words[0] != "train" or _is_news(known[1]):
            print(f"hms-dist {words[0]}: {known[1]}", file=sys.stderr)
        return known[0]


def _call(verb: str, words: list[str]) -> int:
    module, command = command_of(verb, words)
    from hms_dist.core.logging import start_log

    start_log(int(os.environ.get("RANK", "0")))
    module.run(command)
    return 0


def _is_news(line: str) -> bool:
    """Whether no other rank of a training run prints this: a failure of one rank alone carries its number."""
    return os.environ.get("RANK", "0") == "0" or line.startswith("rank ")


def _usage() -> str:
    lines = [f"  {verb:<12}{text}" for verb, (_, _, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: hms-dist <command> [--config NAME] [--option value ...]",
            "",
            "commands:",
            *lines,
            "",
            "hms-dist <command> --help explains every option of a command with its unit and default.",
            "NAME is a recipe's, a path has a slash or ends in .yaml; hms-dist recipes lists the names.",
            "Several GPUs: accelerate launch -m hms_dist train --config public_baseline --shards SHARDS --out RUN",
        ]
    )
