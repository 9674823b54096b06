"""Assignment of label rows to shards: a seeded permutation that mixes patients and keeps recordings together."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from hms_dist.core.keyed import keyed_hash


@dataclass(frozen=True)
class ShardPlan:
    """Label rows of one shard."""

    number: int
    rows: tuple[int, ...]
    """In rendering order: rows of one spectrogram, and within it of one EEG, are adjacent."""
    tar_order: tuple[int, ...]
    """The same rows in writing order: shuffled, so that a sequential reader gets patients mixed."""


def plan_shards(frame: pd.DataFrame, samples_per_shard: int, seed: int) -> list[ShardPlan]:
    """Assign every row of a label table to a shard, depending only on ids and seed, not on the order of rows.

    Spectrograms are permuted by a keyed hash of their id, so each file is needed by one shard, or by two at a shard's
    edge. The rows of each shard are written in the order of a keyed hash of their own ids.
    """
    by_group = keyed_hash(seed, frame["spectrogram_id"])
    by_row = keyed_hash(seed, frame["eeg_id"], frame["eeg_sub_id"])
    order = np.lexsort((frame["eeg_sub_id"], frame["eeg_id"], frame["spectrogram_id"], by_group))
    plans = []
    for number, first in enumerate(range(0, len(order), samples_per_shard)):
        rows = order[first : first + samples_per_shard]
        mixed = rows[np.argsort(by_row[rows], kind="stable")]
        plans.append(ShardPlan(number, tuple(map(int, rows)), tuple(map(int, mixed))))
    return plans
