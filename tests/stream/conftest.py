"""Indexes without shards: votes and ids of random rows, for what reads no bytes."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.labels import VOTE_COLUMNS
from hms_dist.shards.index import Index, fold_column


def random_index(num_rows=503, seed=None, rows_per_shard=37):
    """EEGs of about four rows, patients of about three EEGs, in tars whose rows are mixed; up to 19 votes a row."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"eeg_id": np.sort(rng.integers(0, num_rows // 4, num_rows))})
    frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount()
    frame["patient_id"] = frame["eeg_id"] // 3
    frame[list(VOTE_COLUMNS)] = rng.integers(0, 4, (num_rows, 6))
    frame["other_vote"] += 1
    frame[fold_column(5)] = frame["patient_id"] % 5
    frame = frame.sample(frac=1, random_state=int(rng.integers(2**31))).reset_index(drop=True)
    frame["shard"] = np.arange(num_rows) // rows_per_shard
    frame["key"] = frame["eeg_id"].astype(str) + "-" + frame["eeg_sub_id"].astype(str)
    return Index(frame)


@pytest.fixture
def index():
    """503 rows, others in every test."""
    return random_index()


@pytest.fixture(scope="session")
def make_index():
    """A function that makes indexes."""
    return random_index
