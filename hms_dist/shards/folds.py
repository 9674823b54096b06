"""Folds of a shard set, stored as columns of its index.

They are computed once, when the index is written: runs, predictions and ensembles of a set share its splits whatever
version of scikit-learn they use. There is a column for each of FOLD_COUNTS, because the number of folds is chosen at
training time and rendering again takes hours.
"""

import numpy as np
import pandas as pd

from hms_dist.labels.table import FOLD_COUNTS, VOTE_COLUMNS, patient_folds
from hms_dist.shards.index import fold_column


def with_folds(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Add an Int8 column to index `rows` for each number of folds in FOLD_COUNTS.

    Grouped by patient, stratified by the class with most votes, shuffled by `seed`. Null if the rows have no votes, or
    fewer patients than folds.
    """
    labelled = bool(rows[VOTE_COLUMNS[0]].notna().all()) and len(rows) > 0
    num_patients = rows["patient_id"].nunique() if labelled else 0
    votes = rows[list(VOTE_COLUMNS)].to_numpy(np.int64) if labelled else None
    columns = {}
    for num_folds in FOLD_COUNTS:
        name = fold_column(num_folds)
        if votes is not None and num_folds <= num_patients:
            folds = patient_folds(votes, rows["patient_id"].to_numpy(np.int64), num_folds, seed)
            columns[name] = pd.array(folds, "Int8")
        else:
            columns[name] = pd.array([None] * len(rows), "Int8")
    return rows.assign(**columns)
