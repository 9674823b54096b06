"""Selections: the rows of a run that an epoch trains on. Each rule is one function, listed in a table of names.

A selection is a pure function of the index, the run's rows, and (seed, epoch); it does not depend on ranks, on the
order of the given rows, or on earlier epochs. The order of an epoch is determined separately (`epoch_plan`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import one_of
from hms_dist.core.keyed import keyed_hash, keyed_uniform
from hms_dist.core.plugins import HINT
from hms_dist.labels.table import rebalancing_probabilities
from hms_dist.shards.index import Index, Rows

_CHOICE, _BALANCE, _KEEP = 2, 3, 4
"""Streams of keyed draws: a row of an EEG, rows of a class, whether a row is kept."""


@dataclass(frozen=True, kw_only=True)
class VoteWeights:
    """Probability with which rule `vote_weighted` keeps a row, by its votes."""

    weights: tuple[tuple[int, float], ...] = ((1, 0.3), (4, 0.5), (9, 1.0))
    """(least votes, probability) of each bucket, both ascending, the first from 1 vote. The 3rd place's weights and its
    bound of more than 8 votes; the bound between the lower two is not published."""
    decay: float = 0.9
    """Factor of the probabilities below 1 from one epoch to the next, in (0, 1]."""

    def __post_init__(self) -> None:
        bounds, weights = [bound for bound, _ in self.weights], [weight for _, weight in self.weights]
        if bounds[:1] != [1] or bounds != sorted(set(bounds)):
            raise ValueError(f"vote_weights.weights: expected least votes that rise from 1, found {bounds}")
        if weights != sorted(weights) or not weights[0] > 0 or weights[-1] > 1:
            raise ValueError(f"vote_weights.weights: expected rising probabilities in (0, 1], found {weights}")
        if not 0 < self.decay <= 1:
            raise ValueError(f"vote_weights.decay: expected a factor in (0, 1], found {self.decay}")

    def probabilities(self, num_voters: NDArray[np.int64], epoch: int) -> NDArray[np.float64]:
        """Probability [rows] of keeping rows with these votes: weight * decay^epoch, but 1 stays 1."""
        bucket = np.searchsorted([bound for bound, _ in self.weights], num_voters, side="right") - 1
        weight = np.array([weight for _, weight in self.weights])[bucket]
        return np.where(weight < 1, weight * self.decay**epoch, 1.0)


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Rows of an epoch: bounds on the votes first, then a rule among the remaining rows."""

    rule: str = "all"
    """Name of a rule in SELECTIONS: all, one_random_row_per_eeg, centre_row_per_eeg, class_balanced, class_rebalanced,
    vote_weighted."""
    min_votes: int = 1
    """Rows with fewer votes are left out."""
    max_votes: int | None = None
    """Rows with more votes are left out; None: no upper bound."""
    min_votes_schedule: tuple[tuple[int, int], ...] = ()
    """(epoch, votes), epochs ascending from 0: from that epoch on, `votes` replaces min_votes (4th place). Before the
    first of them min_votes applies."""
    vote_weights: VoteWeights | None = None
    """Weights of rule vote_weighted; None: its defaults. An error with another rule."""

    def __post_init__(self) -> None:
        one_of("selection.rule", self.rule, list(SELECTIONS), HINT)
        epochs = [epoch for epoch, _ in self.min_votes_schedule]
        if epochs != sorted(set(epochs)) or min(epochs, default=0) < 0:
            raise ValueError(f"selection.min_votes_schedule: expected epochs that rise from 0, found {epochs}")
        highest = max(self.min_votes, *(votes for _, votes in self.min_votes_schedule), 0)
        if self.max_votes is not None and self.max_votes < highest:
            raise ValueError(f"selection.max_votes: expected at least min_votes ({highest}), found {self.max_votes}")
        if self.vote_weights is not None and self.rule != "vote_weighted":
            raise ValueError(f"selection.vote_weights: rule {self.rule} does not use them; leave them out")

    def min_votes_in(self, epoch: int) -> int:
        """Fewest votes of a row in epoch `epoch` (0 is the first)."""
        passed = [votes for first, votes in self.min_votes_schedule if first <= epoch]
        return passed[-1] if passed else self.min_votes


@dataclass(frozen=True)
class Candidates:
    """The rows that a rule chooses from."""

    index: Index
    rows: Rows
    """Rows [n] within the bounds on the votes."""
    selection: SelectionConfig
    seed: int
    epoch: int

    def ids(self, name: str) -> NDArray[np.int64]:
        """Ids [rows] of the candidates."""
        return self.index.ids(name)[self.rows]

    def classes(self) -> NDArray[np.int64]:
        """Class [rows] with most votes, the first among equals; pseudo-labels are not considered."""
        return np.asarray(self.index.votes[self.rows].argmax(axis=1), np.int64)

    def hashes(self, stream: int) -> NDArray[np.uint64]:
        """A keyed hash [rows] of each candidate, a different one each epoch."""
        return keyed_hash(self.seed, stream, self.epoch, self.rows)


def select(index: Index, rows: Rows, selection: SelectionConfig, *, seed: int, epoch: int) -> Rows:
    """Return the rows [n] of an epoch, ascending, without duplicates."""
    num_voters = index.num_voters[rows]
    kept = num_voters >= selection.min_votes_in(epoch)
    if selection.max_votes is not None:
        kept &= num_voters <= selection.max_votes
    return np.sort(SELECTIONS[selection.rule](Candidates(index, rows[kept], selection, seed, epoch)))


def class_counts(index: Index, rows: Rows) -> dict[str, int]:
    """Number of `rows` [n] of each class, by most votes, or with a known yes; for the log."""
    dataset = index.dataset
    if dataset.target == "yes_no":
        counts = (index.targets[rows] == 1).sum(axis=0)
    else:
        counts = np.bincount(index.votes[rows].argmax(axis=1), minlength=dataset.num_classes)
    return dict(zip(dataset.classes, counts.tolist(), strict=True))


def _all(candidates: Candidates) -> Rows:
    """Every row."""
    return candidates.rows


def _one_random_row_per_eeg(candidates: Candidates) -> Rows:
    """One row of each EEG, drawn again each epoch (the 16th place)."""
    eeg_ids = candidates.ids("eeg_id")
    order = np.lexsort((candidates.hashes(_CHOICE), eeg_ids))
    _, first = np.unique(eeg_ids[order], return_index=True)
    return candidates.rows[order][first]


def _centre_row_per_eeg(candidates: Candidates) -> Rows:
    """The middle row of each EEG by sub id (the 16th place's validation rows)."""
    eeg_ids = candidates.ids("eeg_id")
    order = np.lexsort((candidates.ids("eeg_sub_id"), eeg_ids))
    _, first, count = np.unique(eeg_ids[order], return_index=True, return_counts=True)
    return candidates.rows[order][first + count // 2]


def _class_balanced(candidates: Candidates) -> Rows:
    """As many rows of every class as the rarest class has, drawn again each epoch without replacement.

    Classes without rows are ignored. All rows of a class are equally likely, so larger classes are covered over several
    epochs.
    """
    classes = candidates.classes()
    order = np.lexsort((candidates.hashes(_BALANCE), classes))
    _, first, count = np.unique(classes[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(first, count)
    return candidates.rows[order[place < count.min(initial=len(order))]]


def _class_rebalanced(candidates: Candidates) -> Rows:
    """Each row with a probability inversely proportional to its class's share of the votes (course report).

    The share is of all votes of the candidates; the class with the smallest share above 0 keeps all its rows. Drawn
    again each epoch. Because rows also hold votes for other classes, the result is closer to balance than the data, but
    not balanced; for that use `class_balanced`.
    """
    return _kept(candidates, rebalancing_probabilities(candidates.index.votes[candidates.rows]))


def _vote_weighted(candidates: Candidates) -> Rows:
    """Each row with a probability by its number of votes, decreasing from epoch to epoch (3rd place)."""
    weights = candidates.selection.vote_weights or VoteWeights()
    return _kept(candidates, weights.probabilities(candidates.index.num_voters[candidates.rows], candidates.epoch))


def _kept(candidates: Candidates, probability: NDArray[np.float64]) -> Rows:
    """Each row with its own probability [rows], drawn again each epoch."""
    draws = keyed_uniform(candidates.seed, _KEEP, candidates.epoch, candidates.rows)
    return candidates.rows[draws < probability]


SELECTIONS: dict[str, Callable[[Candidates], Rows]] = {
    "all": _all,
    "one_random_row_per_eeg": _one_random_row_per_eeg,
    "centre_row_per_eeg": _centre_row_per_eeg,
    "class_balanced": _class_balanced,
    "class_rebalanced": _class_rebalanced,
    "vote_weighted": _vote_weighted,
}
"""Name -> rule: candidates to the selected rows, in any order."""


def register_selection(name: str, selection: Callable[[Candidates], Rows]) -> None:
    """Add a selection of a plug-in under a new name. Raises ValueError if the name is taken."""
    if name in SELECTIONS:
        raise ValueError(f"{name}: there is a selection of this name; choose another")
    SELECTIONS[name] = selection
