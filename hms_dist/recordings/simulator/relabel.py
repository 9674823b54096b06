"""Labels of another data set for simulated recordings: its classes are unions of the simulated patterns.

shares: the votes of a class are those of its patterns. yes_no: a class is present if its patterns have at least a third
of the row's votes; one cell in `UNKNOWN_SHARE` is unknown. The truth of such a cell is the probability of that, known
because votes are drawn independently: a tail of the binomial distribution.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset

VOTES_A_YES = 3
"""A class is present if this many times its votes are at least the row's votes."""
UNKNOWN_SHARE = 0.3
"""Share of the cells that nobody looked at."""


def check_patterns(dataset: Dataset, path: Path | None) -> None:
    """Raise UserError unless each simulated pattern has a class. `path`: the file, for the message."""
    lacking = [name for name in HMS.classes if dataset.label_texts.get(name) is None]
    if dataset != HMS and lacking:
        raise UserError(
            f"{path}: labels: expected a class for each simulated pattern ({', '.join(HMS.classes)}), found none for "
            f"{lacking[0]}; add a line '{lacking[0]}: {dataset.classes[0]}'"
        )


def relabelled(rows: pd.DataFrame, dataset: Dataset, seed: int) -> pd.DataFrame:
    """Replace votes and true shares of HMS's classes by those of `dataset`; expert_consensus is dropped.

    `seed`: of the unknown cells.
    """
    belongs = np.array([[dataset.label_texts.get(name) == one for one in dataset.classes] for name in HMS.classes])
    votes = rows[list(HMS.vote_columns)].to_numpy(np.int64) @ belongs
    truth = rows[list(HMS.classes)].to_numpy(np.float64) @ belongs
    labels = pd.DataFrame(votes, columns=list(dataset.vote_columns), index=rows.index).astype("Int64")
    if dataset.target == "yes_no":
        total = rows[list(HMS.vote_columns)].to_numpy(np.int64).sum(axis=1)
        yes = VOTES_A_YES * votes >= total[:, None]
        labels = pd.DataFrame(yes, columns=labels.columns, index=rows.index).astype("Int64")
        truth = _tail(total, truth)
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(6,)))
        labels = labels.mask(rng.random(labels.shape) < UNKNOWN_SHARE)
    kept = rows.drop(columns=[*HMS.vote_columns, *HMS.classes, "expert_consensus"], errors="ignore")
    return pd.concat([kept, labels, pd.DataFrame(truth, columns=list(dataset.classes), index=rows.index)], axis=1)


def _tail(total: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that a class of these true shares [rows, classes] is present, from the rows' `total` votes [rows]."""
    from scipy.stats import binom

    least = -(-total // VOTES_A_YES)
    return np.asarray(binom.sf(least[:, None] - 1, total[:, None], np.minimum(shares, 1.0)))
