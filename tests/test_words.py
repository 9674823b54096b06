"""Words that documentation, messages and code avoid, each with its replacement (the style of PyTorch's and timm's docs).

The first table is for prose: habits that make a text a riddle. The second is for names: earlier names of parts that
now have the field's term. A line with a good reason is listed in EXCEPTIONS.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PROSE = {
    r'^\s*[rbf]*"""What\b|^\s*# What\b|^- What\b': "begin with a noun phrase or an imperative, not with What",
    r"\b(stands|stood|standing)\b(?! for\b)": "is, appears, is stored",
    r"\bstand (?!for\b|alone\b|out\b)": "is, appear, are stored",
    r"\blies?\b": "is, are",
    r"\b(tells|told)\b": "shows, reports, identifies",
    r"\b(says|said|saying)\b": "states, specifies; for a variable: message, printed",
    r"\b(hears?|heard|hearsay)\b": "notices, is notified; secondary error",
    r"\bbeliev\w+": "verify, trust, assume",
    r"(?<!there )\b(is|are) no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b|such\b)\w+": "is not a; NaN for no number",
    r"\b(made|make|makes|making|computed|rendered|compiled) anew\b|\bmade again\b": "rebuilt, recomputed, recompiled",
    r"\banew\b": "again",
    r"\b(go|goes|went|going|gone) on\b(?! to\b)": "continue, resume",
    r"\bmend(s|ed|ing)?\b": "fix, correct, repair",
    r"\bspoil\w*": "corrupt, damage; malformed for input",
    r"\breckon\w*": "estimate",
    r"\b(shall|upon|hence|thereof|wherein|lest|whilst)\b": "plain words: must, on, so, of it, in which",
    r"\bfor want of\b": "without, for lack of",
    r"\b(takes? its leave|farewell|last words)\b": "shuts down, exits",
    r"\bhalf a turn\b": "180 degrees",
    r"\blearns \S+ (images|pictures|rows) (a|per) second\b": "trains at N images/s",
    r"(?i)\bseeds? 00[0-4]\b": "the name of the source in docs/sources.md, such as 'the course report'",
}
"""Pattern in a line of text -> what to write. Case matters unless the pattern says otherwise."""

NAMES = {
    "keeper": "checkpointing, RunState",
    "judge": "NonFiniteLossGuard, held_out, outcome",
    "on_?its_?way": "AsyncScalars",
    "making": "BuildSpec, build_spec",
    "provenance": "lineage",
    "row_labels": "loss_config",
    "left_at_end": "shutdown",
    "machine_code": "jit",
    "verbs?": "command, commands",
    "stand_?-?ins?": "replacement, Replacements",
    "crews?": "WorkerPool",
    "desk": "Sandbox",
    r"(?<!\.)claims?": "lease; .claim, after a dot, is the file name on disk",
    "hearsay": "secondary_error",
    "say_[a-z_]+": "log_..., warn_...",
}
"""Part of an identifier, or word, in lower case -> the name to use; between other letters it is another word."""

EXCEPTIONS = {}
"""(File, pattern or name) -> why it may stay there."""

ELSEWHERE: tuple[str, ...] = ()
"""Files and folders that are not checked yet."""

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".yaml", ".cfg", ".toml", ".sh", ".sbatch", ".css", ".txt", ""}
NOT_OURS = ("LICENSE", "constraints.txt", "tests/golden/", "tests/stored/5e6f9d5/", "tests/test_words.py")


def _checked(patterns: dict[str, str]) -> tuple[re.Pattern[str], list[str]]:
    groups = "|".join(f"(?P<n{number}>{pattern})" for number, pattern in enumerate(patterns))
    return re.compile(groups, re.MULTILINE), list(patterns)
