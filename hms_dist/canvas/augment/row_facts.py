"""Facts about the rows of a shard set that augmentations depend on, besides a row's draws."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hms_dist.shards.index import Index

RowKind = Literal["all", "positive", "negative"]
"""Rows that an augmentation may change: all, those in which a class is known to be present, or those in which none
is."""
PRESENT = 0.5
"""Smallest target of a class that is present, for independent yes/no classes."""


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Facts about all rows of a shard set, by row number."""

    positive: NDArray[np.bool_]
    """Whether a class is known to be present [rows]."""
    annotated_s: NDArray[np.float64]
    """Start and end of the annotated part [rows, 2], seconds from the start of the row."""
    yes_no: bool
    """Whether classes are independent (target yes_no) instead of shares."""

    def allows(self, kind: RowKind, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each of `rows` [m] is of a kind."""
        if kind == "all":
            return np.ones(len(rows), bool)
        return self.positive[rows] == (kind == "positive")


def row_facts(index: Index, targets: NDArray[np.float64]) -> RowFacts:
    """Collect the facts of a shard set, with the `targets` [rows, classes] of the run.

    The annotated part is the row's box or, without boxes, the middle of the row.
    """
    dataset, frame = index.dataset, index.frame
    middle = np.array([-0.5, 0.5]) * dataset.annotated_s + dataset.window_s / 2
    annotated_s = np.tile(middle, (len(frame), 1))
    if dataset.signal == "audio":
        boxes = frame[["t_min", "t_max"]].to_numpy(np.float64, na_value=np.nan)
        boxes = boxes - frame["eeg_label_offset_seconds"].to_numpy(np.float64)[:, None]
        annotated_s = np.where(np.isnan(boxes), annotated_s, boxes.clip(0, dataset.window_s))
    yes_no = dataset.target == "yes_no"
    positive = np.any(np.nan_to_num(targets) >= PRESENT, axis=1) | (not yes_no)
    return RowFacts(positive, annotated_s, yes_no)


def mixed_targets(own: Tensor, partners: Tensor, share: Tensor, *, yes_no: bool) -> Tensor:
    """Targets, any float dtype [n, classes], of rows mixed with partners; the row itself is a `share` [n, 1] of the
    mix.

    Shares: the weighted mean. Yes or no: labels and masks are joined. A class is present in the mix if it is present in
    either, absent if it is known to be absent in one and not known to be present in the other, and unknown (NaN) if it
    is unknown in both: a quieter call is still a call.
    """
    if not yes_no:
        return own * share + partners * (1 - share)
    return torch.where(own.isnan(), partners, torch.where(partners.isnan(), own, torch.maximum(own, partners)))
