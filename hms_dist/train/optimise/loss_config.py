"""Loss, targets and weights of training rows: smoothing of targets, and weights by votes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError, one_of
from hms_dist.core.plugins import HINT
from hms_dist.datasets import HMS, Dataset
from hms_dist.model.loss import LOSSES
from hms_dist.results.predictions import in_words

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The loss, and how a row's number of votes affects its weight. By default all rows have equal weight."""

    name: str = "kl"
    """kl (the metric's own), bce (independent classes; 7th place), ce (kl without the label's entropy); bce_known (mean
    over known classes) for data sets of independent yes/no classes."""
    vote_power: float = 0.0
    """A row of n votes has weight n to this power: 1 weights by votes (15th place), 0 all rows equally."""
    vote_steps: tuple[tuple[int, float], ...] = ()
    """[votes, weight] pairs, the first at 1 vote, votes ascending: from that many votes, a row has this weight, times
    that of vote_power (maxc303: [1, 0.25], [8, 1])."""
    smooth_below: int | None = None
    """Smooth the targets of rows with fewer votes than this by the disagreement of voters on the other rows; None:
    never."""

    def __post_init__(self) -> None:
        one_of("loss.name", self.name, list(LOSSES), HINT)
        if not self.vote_power >= 0:
            raise ValueError(f"vote_power: expected 0 or more, found {self.vote_power}")
        votes = [count for count, _ in self.vote_steps]
        if votes and (votes[0] != 1 or votes != sorted(set(votes))):
            raise ValueError(f"vote_steps: expected ascending votes from 1 on, found {votes}")
        if any(not weight > 0 for _, weight in self.vote_steps):
            raise ValueError(f"vote_steps: expected weights above 0, found {[weight for _, weight in self.vote_steps]}")
        if self.smooth_below is not None and self.smooth_below < 2:
            raise ValueError(f"smooth_below: expected at least 2 votes, or null, found {self.smooth_below}")


def row_weights(config: LossConfig, num_voters: NDArray[np.integer]) -> Floats:
    """Weight of each row [rows] by its votes [rows], any integer dtype.

    The trainer divides by their sum over the global batch.
    """
    weights = np.asarray(num_voters, np.float64) ** config.vote_power
    if config.vote_steps:
        votes, factors = zip(*config.vote_steps, strict=True)
        weights *= np.asarray(factors)[np.searchsorted(votes, num_voters, side="right") - 1]
    return weights


def training_targets(
    config: LossConfig, targets: Floats, num_voters: NDArray[np.integer], train_rows: NDArray[np.int64]
) -> Floats:
    """Targets [rows, classes] for training: `targets`, smoothed as `config` specifies.

    The confusion of voters is counted only on `train_rows`: no information of the validation fold enters the labels.
    """
    if config.smooth_below is None:
        return targets
    sure = train_rows[num_voters[train_rows] >= config.smooth_below]
    return np.where((num_voters < config.smooth_below)[:, None], targets @ confusion(targets[sure]), targets)


def confusion(targets: Floats) -> Floats:
    """Confusion of voters by consensus [classes, classes]: row a is the mean target of the rows with most votes for
    class a (the first among equals). A class without rows is certain of itself. Rows sum to 1.

    A row's target times this matrix spreads each vote for a as the voters of many-voted rows with consensus a spread
    theirs (the 16th place's label smoothing by voters).
    """
    matrix = np.eye(targets.shape[1])
    consensus = targets.argmax(axis=1)
    for label in np.unique(consensus):
        matrix[label] = targets[consensus == label].mean(axis=0)
    return matrix


def check_targets(targets: Floats, keys: Sequence[str], dataset: Dataset = HMS) -> None:
    """Raise UserError naming the first row of `targets` [rows, classes], by its key, that is not a probability
    distribution or, for independent yes/no classes, has values other than probabilities and NaN."""
    if dataset.target == "yes_no":
        bad = np.flatnonzero(~(np.isnan(targets) | ((targets >= 0) & (targets <= 1))).all(axis=1))
        if bad.size:
            raise UserError(
                f"labels: row {keys[bad[0]]}: expected probabilities or unknown, found {targets[bad[0]].tolist()} "
                f"({bad.size} such rows in all)"
            )
        return
    bad = np.flatnonzero(~((targets >= 0).all(axis=1) & np.isclose(targets.sum(axis=1), 1)))
    if bad.size:
        found = ", ".join(f"{value:.6g}" for value in targets[bad[0]])
        raise UserError(
            f"labels: row {keys[bad[0]]}: expected {in_words(dataset)}, found {found} (sum "
            f"{targets[bad[0]].sum():.6g}; {bad.size} such rows in all); normalise the labels"
        )
