"""`hms-dist subset`: derive a label table by a named rule, for `hms-dist render --table`."""

import inspect
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

from hms_dist.core import limits
from hms_dist.core.errors import UserError, one_of
from hms_dist.core.files import atomic, read_bytes
from hms_dist.core.keyed import check_seed
from hms_dist.datasets import HMS, Dataset, read_dataset
from hms_dist.labels.subset_rules import RULES, classes_of
from hms_dist.labels.table import read_labels
from hms_dist.labels.vote_shares import save_vote_shares, vote_shares

COLUMNS = (
    "eeg_id", "eeg_sub_id", "eeg_label_offset_seconds", "spectrogram_id", "spectrogram_label_offset_seconds",
    "patient_id", "expert_consensus",
)  # fmt: skip
"""Columns of a derived table before the votes, in Kaggle's order; expert_consensus only if the source has it."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Derive a label table from DATA/train.csv and print the rows of each class before and after.

    Rules: balanced (as many rows of each class), high_vote, golden (high votes, one row for each label of an EEG),
    eeg_sum (one row per EEG: votes summed, the middle 50 s), spectrogram_sum (one row per spectrogram, votes summed).
    """

    data: Path
    """Folder in Kaggle's layout. Only rule eeg_sum reads its train_eegs/, for the length of each file."""
    out: Path
    """CSV file to write. An existing file is kept if it is equal, and an error otherwise."""
    rule: str
    """balanced, high_vote, golden, eeg_sum or spectrogram_sum."""
    table: Path | None = None
    """Label table to start from. None: DATA/train.csv."""
    rows_per_class: int | None = None
    """Rule balanced: rows of each class. None: 50."""
    min_votes: int | None = None
    """Rules high_vote and golden: smallest number of votes of a row. None: 8 for high_vote, 9 for golden."""
    seed: int | None = None
    """Rule balanced: seed of the draw. None: 0."""
    vote_shares: Path | None = None
    """Bar chart (.png) of each class's share of the votes: before, after, and after the rebalancing of selection
    class_rebalanced (averaged over its draws); a table (.csv) is written next to it. None: no chart."""

    def __post_init__(self) -> None:
        one_of("rule", self.rule, list(RULES))
        for name in ("rows_per_class", "min_votes", "seed"):
            if getattr(self, name) is not None and name not in _options(self.rule):
                raise ValueError(f"{name}: rule {self.rule} does not use it; leave it out")
        for name in ("rows_per_class", "min_votes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, found {value}")
        check_seed("seed", self.seed or 0)
        if self.vote_shares is not None and self.vote_shares.suffix != ".png":
            raise ValueError(f"vote_shares: expected a name ending in .png, found {self.vote_shares.name}")
        if self.vote_shares is not None and self.vote_shares.with_suffix(".csv").resolve() == self.out.resolve():
            raise ValueError("vote_shares: its table beside it would have the name of --out; choose another name")


def run(command: Subset) -> None:
    """Run the command `subset`. Raises UserError for an invalid table, too few rows, or a different table at `out`."""
    dataset = read_dataset(command.data)
    if dataset.target != "shares":
        raise UserError(f"{command.data}: target yes_no: the rules of subset count votes")
    labels = read_labels(command.table or command.data / "train.csv", dataset)
    if not labels.labelled:
        raise UserError(f"{labels.path}: no votes; subset expects a labelled table such as train.csv")
    derived = derive(command, labels.frame, dataset)
    if derived.empty:
        raise UserError(f"{labels.path}: rule {command.rule} leaves none of {len(labels.frame)} rows; lower min_votes")
    _write(command.out, derived)
    if command.vote_shares is not None:
        _save_shares(command.vote_shares, labels.frame, derived, dataset)
    print(counts(labels.frame, derived, dataset))


def derive(command: Subset, frame: pd.DataFrame, dataset: Dataset = HMS) -> pd.DataFrame:
    """Return the derived rows, with columns COLUMNS and the votes."""
    given: dict[str, Any] = {name: getattr(command, name) for name in _options(command.rule)}
    options = {name: value for name, value in given.items() if value is not None}
    rows = RULES[command.rule](frame, dataset=dataset, **options)
    return rows[[name for name in (*COLUMNS, *dataset.vote_columns) if name in rows]]


def counts(before: pd.DataFrame, after: pd.DataFrame, dataset: Dataset = HMS) -> str:
    """Format a table of rows per class, rows, EEGs, spectrograms and patients, before and after."""
    lines = [f"{'':<14}{'before':>8}{'after':>8}"]
    classes = [classes_of(frame, dataset) for frame in (before, after)]
    for number, name in enumerate(dataset.titles):
        lines.append(f"{name:<14}" + "".join(f"{(found == number).sum():>8}" for found in classes))
    lines.append(f"{'rows':<14}{len(before):>8}{len(after):>8}")
    for name in ("eeg", "spectrogram", "patient"):
        numbers = [frame[f"{name}_id"].nunique() for frame in (before, after)]
        lines.append(f"{name + 's':<14}{numbers[0]:>8}{numbers[1]:>8}")
    return "\n".join(lines)


def _save_shares(path: Path, before: pd.DataFrame, after: pd.DataFrame, dataset: Dataset) -> None:
    try:
        save_vote_shares(path, vote_shares(before, after, dataset))
    except OSError as error:
        raise UserError(f"{path}: cannot write this file ({error.strerror}); choose another --vote_shares") from error


def _options(rule: str) -> list[str]:
    """Names of a rule's options."""
    return [name for name in inspect.signature(RULES[rule]).parameters if name not in ("frame", "dataset")]


def _write(path: Path, rows: pd.DataFrame) -> None:
    text = StringIO()
    rows.to_csv(text, index=False, lineterminator="\n")
    content = text.getvalue().encode()
    try:
        if path.exists():
            if read_bytes(path, limits.CSV_BYTES) != content:
                raise UserError(f"{path}: another file is there already; choose another --out or remove it")
            return
        with atomic(path) as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"{path}: cannot write this file ({error.strerror}); choose another --out") from error
