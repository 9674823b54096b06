"""The plan of an epoch: the rows of each step, computed by a pure function that does not depend on ranks or threads.

Step s of an epoch trains on exactly rows [s*B, (s+1)*B) of the plan. A plan does not depend on earlier steps or epochs,
so a resume computes the plan again and starts at its step.

The B rows of a step are split into groups of m rows, the unit of batch norm and of mixing. Each of W ranks computes
B / W consecutive rows in passes: first whole groups, as many at once as memory allows; then the rows of groups that are
split over ranks, in one pass, the only one in which ranks exchange statistics.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.core.keyed import keyed_hash
from hms_dist.shards.index import Index, Rows
from hms_dist.stream.rows.locality import LocalityConfig, interleave_lanes, local_order
from hms_dist.stream.rows.selections import SelectionConfig, select

_ORDER = 1
"""Stream of keyed draws: the order of an epoch."""


@dataclass(frozen=True, eq=False)
class Pass:
    """Rows that a rank computes at once, by their places in the step (0 to B - 1), in ascending order."""

    places: NDArray[np.int64]
    """Places of its rows [n]."""
    is_split: bool
    """Whether its groups are split over ranks."""

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The rows of a step: B rows in G = B / m groups of m rows, distributed over ranks by rows."""

    global_batch: int
    """Number of rows of one optimiser step, B."""
    group_size: int
    """Number of rows of one group, m."""

    def __post_init__(self) -> None:
        if self.group_size < 1:
            raise ValueError(f"group_size: expected at least 1, found {self.group_size}")
        if self.global_batch < 1 or self.global_batch % self.group_size:
            raise ValueError(
                f"global_batch: expected a multiple of group_size, found {self.global_batch} and {self.group_size}"
            )

    @property
    def num_groups(self) -> int:
        """Number of groups of one step, G."""
        return self.global_batch // self.group_size

    def check_world(self, num_ranks: int) -> None:
        """Raise UserError for a number of ranks that does not divide B, listing those that do."""
        if self.global_batch % num_ranks:
            fitting = [str(number) for number in range(1, 65) if self.global_batch % number == 0]
            raise UserError(
                f"global_batch: {self.global_batch} rows cannot be shared equally by {num_ranks} ranks; start "
                f"{' or '.join([', '.join(fitting[:-1]), fitting[-1]]) if len(fitting) > 1 else fitting[0]} ranks, or "
                "change global_batch"
            )

    def split_groups(self, num_ranks: int) -> tuple[int, ...]:
        """Return the numbers of the groups that are split over ranks."""
        share = self.global_batch // num_ranks
        first = np.arange(0, self.global_batch, self.group_size)
        return tuple(np.flatnonzero(first // share != (first + self.group_size - 1) // share).tolist())

    def passes(self, rank: int, num_ranks: int, pass_rows: int | None = None) -> list[Pass]:
        """Return the passes of a rank in every step, in order.

        `pass_rows`: largest number of rows of a pass; None: as few passes as possible. If groups are split over ranks,
        the last pass of every rank computes its rows of split groups.
        """
        share, split = self.global_batch // num_ranks, self.split_groups(num_ranks)
        places = np.arange(rank * share, (rank + 1) * share)
        is_split = np.isin(places // self.group_size, split)
        whole, rest = places[~is_split], places[is_split]
        most = len(whole) if pass_rows is None else pass_rows // self.group_size * self.group_size
        starts = range(0, len(whole), most) if len(whole) else []
        found = [Pass(whole[start : start + most], False) for start in starts]
        return [*found, Pass(rest, True)] if len(rest) else found

    def min_pass_rows(self, num_ranks: int) -> int:
        """Return the smallest possible `pass_rows`: a whole group, or a rank's rows of split groups."""
        least = 1
        for rank in range(num_ranks):
            for one in self.passes(rank, num_ranks, self.group_size):
                least = max(least, len(one))
        return least

    def check_pass_rows(self, pass_rows: int, num_ranks: int) -> None:
        """Raise UserError for passes that would split a group."""
        least = self.min_pass_rows(num_ranks)
        if pass_rows < least:
            raise UserError(
                f"pass_rows: expected at least {least} on {num_ranks} rank(s) with group_size {self.group_size}, found "
                f"{pass_rows}; for less memory set model.grad_checkpointing: true, or a smaller group_size"
            )


def piece_starts(places: NDArray[np.int64], group_size: int) -> list[int]:
    """Return the start of each run of rows of one group in `places` [n], then the number of places."""
    groups = places // group_size
    return [0, *(i + 1 for i, (one, other) in enumerate(pairwise(groups)) if one != other), len(places)]


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
    """Plan the rows of one epoch, int64 [steps * global_batch], in order; rows that do not fill a step are dropped.

    `rows` [n]: the training rows of the run. `locality` None: a full shuffle. Each epoch drops different rows. Raises
    UserError if the selection leaves fewer rows than one global batch.
    """
    chosen = select(index, rows, selection, seed=seed, epoch=epoch)
    num_rows = _num_steps(len(chosen), len(rows), epoch, global_batch) * global_batch
    if locality is None:
        return chosen[np.argsort(keyed_hash(seed, _ORDER, epoch, chosen), kind="stable")][:num_rows]
    order = local_order(index, chosen, locality, seed=seed, epoch=epoch)
    return interleave_lanes(order[:num_rows], locality.num_lanes, global_batch)


def count_steps(
    index: Index, rows: Rows, selection: SelectionConfig, *, seed: int, num_epochs: int, global_batch: int
) -> list[int]:
    """Count the steps of each epoch of a run, without planning their order. Raises UserError as `plan_epoch` does."""
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
