"""The epoch is a plan: which rows train at which step, a pure function that knows nothing of ranks or threads.

Step s of an epoch trains on exactly rows [s*B, (s+1)*B) of the plan. Those B rows are cut into groups of m;
ranks take whole groups, so any world that divides the groups trains the same run.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.errors import UserError, one_of
from hms_dist.keyed import keyed_hash
from hms_dist.shards.index import Index

Rows = NDArray[np.int64]

_ORDER, _CHOICE = 1, 2
"""Streams of keyed draws: the order of an epoch, and the choice of a row among an EEG's."""


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which of a run's rows an epoch trains on."""

    rule: str = "all"
    """Name of a rule in SELECTIONS: all, one_random_row_per_eeg, centre_row_per_eeg."""
    min_votes: int = 1
    """Rows with fewer votes are left out."""
    max_votes: int | None = None
    """Rows with more votes are left out; None: no upper bound."""

    def __post_init__(self) -> None:
        one_of("selection.rule", self.rule, list(SELECTIONS))
        if self.max_votes is not None and self.max_votes < self.min_votes:
            raise ValueError(f"selection.max_votes: expected at least min_votes ({self.min_votes})")


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The arithmetic of a step: B = G * m rows, G groups shared out over the ranks."""

    global_batch: int
    """Rows of one optimiser step, B."""
    group_size: int
    """Rows of one group, m."""

    def __post_init__(self) -> None:
        if self.group_size < 1 or self.global_batch % self.group_size:
            raise ValueError(
                f"global_batch: expected a multiple of group_size, found {self.global_batch} and {self.group_size}"
            )

    @property
    def num_groups(self) -> int:
        """Groups of one step, G."""
        return self.global_batch // self.group_size

    def check_world(self, num_ranks: int) -> None:
        """Refuse a world whose ranks would not get equal numbers of groups."""
        if self.num_groups % num_ranks:
            raise UserError(
                f"global_batch {self.global_batch} / group_size {self.group_size} = {self.num_groups} groups cannot "
                f"be shared equally by {num_ranks} ranks; make the number of groups a multiple of the ranks"
            )

    def groups_of(self, rank: int, num_ranks: int) -> range:
        """Numbers of the groups that a rank takes of each step: a contiguous block."""
        share = self.num_groups // num_ranks
        return range(rank * share, (rank + 1) * share)

    def rows_of(self, epoch_rows: Rows, step: int, group: int) -> Rows:
        """Rows [m] of one group of one step."""
        first = step * self.global_batch + group * self.group_size
        return epoch_rows[first : first + self.group_size]


def plan_epoch(
    index: Index, rows: Rows, selection: SelectionConfig, *, seed: int, epoch: int, global_batch: int
) -> Rows:
    """Rows of one epoch in order, whole steps only: the tail is dropped, another one each epoch.

    `rows` are the rows open to the run (its training part). Raises UserError if no row is left, or fewer
    than one global batch.
    """
    chosen = select(index, rows, selection, seed=seed, epoch=epoch)
    num_steps = len(chosen) // global_batch
    if not num_steps:
        raise UserError(
            f"selection leaves {len(chosen)} of {len(rows)} training rows, one step needs global_batch = "
            f"{global_batch}; lower global_batch or widen the selection"
        )
    order = np.argsort(keyed_hash(seed, _ORDER, epoch, chosen), kind="stable")
    return chosen[order][: num_steps * global_batch]


def select(index: Index, rows: Rows, selection: SelectionConfig, *, seed: int, epoch: int) -> Rows:
    """The rows that a selection leaves for an epoch, ascending."""
    num_voters = index.num_voters[rows]
    kept = num_voters >= selection.min_votes
    if selection.max_votes is not None:
        kept &= num_voters <= selection.max_votes
    return np.sort(SELECTIONS[selection.rule](index, rows[kept], seed, epoch))


def _all(index: Index, rows: Rows, seed: int, epoch: int) -> Rows:
    """Every row."""
    del index, seed, epoch
    return rows


def _one_random_row_per_eeg(index: Index, rows: Rows, seed: int, epoch: int) -> Rows:
    """One row of each EEG, drawn anew each epoch (seed 002)."""
    order = np.lexsort((keyed_hash(seed, _CHOICE, epoch, rows), index.ids("eeg_id")[rows]))
    return _first_of_each(index.ids("eeg_id"), rows[order])


def _centre_row_per_eeg(index: Index, rows: Rows, seed: int, epoch: int) -> Rows:
    """The middle row of each EEG by sub id (seed 002's validation rows)."""
    del seed, epoch
    eeg_ids = index.ids("eeg_id")[rows]
    order = np.lexsort((index.ids("eeg_sub_id")[rows], eeg_ids))
    _, first, count = np.unique(eeg_ids[order], return_index=True, return_counts=True)
    return rows[order][first + count // 2]


def _first_of_each(ids: NDArray[np.int64], rows: Rows) -> Rows:
    _, first = np.unique(ids[rows], return_index=True)
    return rows[first]


SELECTIONS: dict[str, Callable[[Index, Rows, int, int], Rows]] = {
    "all": _all,
    "one_random_row_per_eeg": _one_random_row_per_eeg,
    "centre_row_per_eeg": _centre_row_per_eeg,
}
"""Name -> rule: (index, rows, seed, epoch) to the rows it leaves."""
