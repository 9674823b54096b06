"""The epoch is a plan: which rows train at which step, a pure function that knows nothing of ranks or threads.

Step s of an epoch trains on exactly rows [s*B, (s+1)*B) of the plan. Those B rows are cut into groups of m;
ranks take whole groups, so any world that divides the groups trains the same run. A plan has no history: any step
of any epoch is known without those before it, so a resume is a look into it.
"""

from dataclasses import dataclass

import numpy as np

from hms_dist.core.errors import UserError
from hms_dist.core.keyed import keyed_hash
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.locality import LocalityConfig, deal, local_order
from hms_dist.stream.rows.selections import SelectionConfig, select

_ORDER = 1
"""Stream of keyed draws: the order of an epoch."""


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The arithmetic of a step: B = G * m rows, G groups shared out over the ranks."""

    global_batch: int
    """Rows of one optimiser step, B."""
    group_size: int
    """Rows of one group, m."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"group_size: expected at least 1, found {self.group_size}")
        if self.global_batch < 1 or self.global_batch % self.group_size:
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
    index: Index,
    rows: Rows,
    selection: SelectionConfig,
    *,
    seed: int,
    epoch: int,
    global_batch: int,
    locality: LocalityConfig | None = None,
) -> Rows:
    """Rows of one epoch in order, whole steps only: the tail is dropped, another one each epoch.

    `rows` are the rows open to the run (its training part). With `locality` None the order is a full shuffle.
    Raises UserError if fewer rows are left than one global batch.
    """
    chosen = select(index, rows, selection, seed=seed, epoch=epoch)
    num_rows = _num_steps(len(chosen), len(rows), epoch, global_batch) * global_batch
    if locality is None:
        return chosen[np.argsort(keyed_hash(seed, _ORDER, epoch, chosen), kind="stable")][:num_rows]
    order = local_order(index, chosen, locality, seed=seed, epoch=epoch)
    return deal(order[:num_rows], locality.num_lanes, global_batch)


def count_steps(
    index: Index, rows: Rows, selection: SelectionConfig, *, seed: int, num_epochs: int, global_batch: int
) -> list[int]:
    """Steps of each epoch of a run: what `plan_epoch` gives, without the orders. Raises UserError as it does."""
    return [
        _num_steps(len(select(index, rows, selection, seed=seed, epoch=epoch)), len(rows), epoch, global_batch)
        for epoch in range(num_epochs)
    ]


def _num_steps(num_chosen: int, num_rows: int, epoch: int, global_batch: int) -> int:
    if num_chosen < global_batch:
        raise UserError(
            f"selection leaves {num_chosen} of {num_rows} training rows in epoch {epoch}, one step needs "
            f"global_batch = {global_batch}; lower global_batch or widen the selection"
        )
    return num_chosen // global_batch
