"""Words and habits that code, messages, documentation and names of tests avoid, each with its replacement.

Texts follow the style of PyTorch's and timm's documentation. PROSE holds habits that make a text hard to read; NAMES
holds earlier names of parts that have a standard term. A line with a reason to keep a word is listed in EXCEPTIONS.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PROSE = {
    r'^\s*[rbf]*"""What\b|^\s*(?:#+|-) What\b': "begin with a noun phrase or an imperative, not with What",
    r"\b(?:stands|stood|standing)\b(?! for\b)": "is, appears, is stored",
    r"\bstand (?!for\b|alone\b|out\b)": "is, appear, are stored",
    r"\blies?\b": "is, are",
    r"\b(?:tells|told)\b": "shows, reports, identifies",
    r"\b(?:says|said|saying)\b": "states, specifies; as a variable: message, printed",
    r"\b(?:hears?|heard|hearsay)\b": "notices, is notified; secondary error",
    r"\bbeliev\w+": "verify, trust, assume",
    r"\b(?:is|are) no (?:\w+ )?(?:numbers?|files?|folders?|integers?|tables?|pattern|step|JSON)\b": "is not a ...; NaN",
    r"\bmade again\b": "rebuilt, recomputed",
    r"\banew\b": "again",
    r"\b(?:go|goes|went|going|gone) on\b(?! to\b)": "continue, resume",
    r"\bmend(?:s|ed|ing)?\b": "fix, correct, repair",
    r"\bspoil\w*": "corrupt, damage; malformed input",
    r"\breckon\w*": "estimate",
    r"\b(?:shall|upon|hence|thereof|wherein|lest|whilst)\b": "must, on, so, of it, in which",
    r"\bfor want of\b": "without, for lack of",
    r"\btakes? its leave\b|\bfarewell\b|\blast[ _]words\b": "shuts down, exits",
    r"\bhalf a turn\b": "180 degrees",
    r"\blearns \S+ (?:images|pictures|rows) (?:a|per) second\b": "trains at N images/s",
    r'^\s*[rbf]*"""The same(?:,|(?: by| from| for| of| before| with| as| in| to)\b)': "state what it computes",
    r"\byes(?:,| or) no(?: or unknown)?,? (?:each )?by (?:itself|themselves)\b": "independent yes/no classes",
    r"\bas (?:the \w+|timm|Kaggle|written) has it\b": "as written in, as timm's",
    r"\b(?:one|an?) (?:row|rank|column|probability|logit|bias|process|launcher|sample|member|slice|task|table|state)"
    r" an? (?:EEG|GPU|class|spectrogram|node|machine|process|row|panel|task|model)\b": "one row per EEG",
    r"\b(?:us|[kMG]B|bytes?|bit|rows|steps|groups|requests|launches|epochs|probabilities|EEGs)"
    r" an? (?:row|class|sample|rank|step|signal|picture|column|batch|epoch|call|stage|shard|EEG|fold|pixel)\b": "per",
    r"\b(?:lets?|letting) go of\b": "release",
    r"\b(?:begins?|starts?) fresh\b": "is initialised at random",
    r"\bin the place of\b": "instead of",
    r"\bat (?:least|most) so many\b": "at least this many, at most this many",
    r"\bwhat comes\b(?! (?:first|next)\b)": "the result",
    r"\bbeyond reason\b": "too large, more than the limit",
    r"\b(?:tools?|machines?|commands?) of (?:research|development|installation)\b": "research tool, development tools",
    r"\b[Ss]eeds? 00[0-4]\b": "the source's name in docs/sources.md, such as 'the course report'",
}
"""Pattern in a line, in upper or lower case -> replacement."""
NAMES = {
    "keeper": "checkpointing, RunState",
    "judge": "NonFiniteLossGuard, held_out, outcome",
    "onitsway": "AsyncScalars",
    r"making(?=\.[a-z]| =|: [a-z])": "build_spec",
    "provenance": "lineage",
    "row_labels": "loss_config",
    "left_at_end": "shutdown",
    "machine_code": "jit",
    "verbs?": "command",
    "stand_?-?ins?": "replacement",
    "crews?": "WorkerPool",
    "desk": "sandbox",
    r"(?<!\.)claims?": "lease (after a dot it is the file name on disk)",
    r"(?<!_)_?say_[a-z_]+": "log_..., warn_...",
}
"""Part of an identifier, or a word -> replacement. Between other letters it is another word."""
EXCEPTIONS = {
    ("tests/stored/make.py", "claim"): "the file names on disk, as patterns",
}
"""(File, matched text) -> reason."""
NOT_CHECKED = ("LICENSE", "constraints.txt", "tests/golden/", "tests/stored/5e6f9d5/", "tests/test_words.py")
FOLDERS = ("hms_dist", "tests", "scripts", "docs", "configs", "slurm", ".ci")
SUFFIXES = {".py", ".md", ".yaml", ".cfg", ".toml", ".sh", ".sbatch", ".css", ".html", ".txt", ""}
REPOSITORY = Path(__file__).parents[1]


class Vocabulary:
    """All patterns, each searched only in texts that contain one of its literal parts, which is 20 times faster."""

    def __init__(self, prose: Mapping[str, str], names: Mapping[str, str]) -> None:
        whole_names = {rf"(?i:(?<![a-z]){name}(?![a-z]))": advice for name, advice in names.items()}
        self._patterns = [
            (re.compile(pattern, re.MULTILINE | re.IGNORECASE), _literals(pattern), advice)
            for pattern, advice in {**prose, **whole_names}.items()
        ]

    def found(self, text: str) -> Iterator[tuple[int, str, str]]:
        """Line, matched text and replacement of every match in a text."""
        lower = text.lower()
        for pattern, literals, advice in self._patterns:
            if any(literal in lower for literal in literals):
                for match in pattern.finditer(text):
                    start = match.end() - len(match[0].lstrip())
                    yield text.count("\n", 0, start) + 1, match[0].strip(), advice


def _files() -> Iterator[Path]:
    """Texts of the repository, without outputs of builds and runs."""
    top = [*REPOSITORY.iterdir(), REPOSITORY / "shards/README.md"]
    inside = [path for folder in FOLDERS for path in (REPOSITORY / folder).rglob("*")]
    yield from sorted(path for path in [*top, *inside] if path.suffix in SUFFIXES and path.is_file())


def _literals(pattern: str) -> list[str]:
    """Parts of which every match of a pattern contains at least one."""
    plain = re.sub(r"\(\?<?[!=][^)]*\)|\\[a-zA-Z]|\[[^]]*\]|\w\?|\(\?i?:", " ", pattern)
    return re.findall(r"[a-z]{2,}", plain.lower())


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary(PROSE, NAMES)


def test_code_messages_and_documentation(vocabulary) -> None:
    used, problems = set(), []
    for path in _files():
        name = path.relative_to(REPOSITORY).as_posix()
        if name.startswith(NOT_CHECKED):
            continue
        for line, word, advice in vocabulary.found(path.read_text()):
            if (name, word) in EXCEPTIONS:
                used.add((name, word))
            else:
                problems.append(f"{name}:{line}: '{word}': write {advice}")
    assert not problems, "\n" + "\n".join(problems)
    assert used == set(EXCEPTIONS), "an exception that nothing needs"


def test_names_of_tests(vocabulary) -> None:
    """Read as sentences; `seed_003` is the name of a recipe."""
    problems = []
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        for name in re.findall(r"def (test_\w+)", path.read_text()):
            words = re.sub(r"seed_00\d", "recipe", name).replace("_", " ")
            found = [f"'{word}': write {advice}" for _, word, advice in vocabulary.found(words)]
            problems += [f"{path.relative_to(REPOSITORY)}: {name}: {each}" for each in found]
    assert not problems, "\n" + "\n".join(problems)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('def f():\n    """What it is."""', ['"""What']),
        ("# What\n", ["# What"]),
        ("the key stands twice, NaN stands for a gap", ["stands"]),
        ("stand-ins and stand_in and understanding", ["stand-ins", "stand_in"]),
        ("a loss that is no number; there is no need", ["is no number"]),
        ("the run goes on; it goes on to stage 2", ["goes on"]),
        ('def f():\n    """The same for a row."""\n"""The same run twice."""', ['"""The same for']),
        ("classes that are yes or no by themselves, yes or no", ["yes or no by themselves"]),
        ("a channel as the file has it; the file has it", ["as the file has it"]),
        ("Seed 003's search, seed 3, seed_003.yaml", ["Seed 003"]),
        (
            "one row an EEG, a probability a class, one row per EEG, a row as a class",
            ["one row an EEG", "a probability a class"],
        ),
        ("Spoilt input; lets go of the GIL; what comes first, what comes then", ["Spoilt", "lets go of", "what comes"]),
        ("self.keeper, BookkeeperError, run/.claim, claims", ["keeper", "claims"]),
        ("making = BuildSpec(), without making copies", ["making"]),
        ("_say_hello(), does_not_say_so()", ["_say_hello"]),
        ("An error names the file, states the reason and continues.", []),
    ],
)
def test_the_patterns_match_what_they_are_for(vocabulary, text, words) -> None:
    assert sorted(word for _, word, _ in vocabulary.found(text)) == sorted(words)


def test_lines_are_counted_from_one(vocabulary) -> None:
    assert sorted(line for line, _, _ in vocabulary.found('a\n\n    """What\n\nmended\n')) == [3, 5]
