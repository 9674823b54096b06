"""Folds of a shard set, stored as columns of its index.

They are computed once, when the index is written: runs, predictions and ensembles of a set share its splits whatever
version of scikit-learn they use. There is a column for each of FOLD_COUNTS, because the number of folds is chosen at
training time and rendering again takes hours.
"""

import numpy as np
import pandas as pd

from hms_dist.datasets import HMS, Dataset
from hms_dist.labels.table import FOLD_COUNTS, patient_folds
from hms_dist.shards.index import fold_column, is_labelled


def with_folds(rows: pd.DataFrame, seed: int, dataset: Dataset = HMS) -> pd.DataFrame:
    """Add an Int8 column to index `rows` for each number of folds in FOLD_COUNTS.

    Grouped by patient, stratified by the class with most votes, shuffled by `seed`. Null if the rows have no votes, or
    fewer patients than folds.
    """
    labelled = len(rows) > 0 and is_labelled(rows, dataset)
    num_patients = rows["patient_id"].nunique() if labelled else 0
    votes = rows[list(dataset.vote_columns)].to_numpy(np.float64, na_value=np.nan) if labelled else None
    columns = {}
    for num_folds in FOLD_COUNTS:
        name = fold_column(num_folds)
        if votes is not None and num_folds <= num_patients:
            folds = patient_folds(votes, rows["patient_id"].to_numpy(np.int64), num_folds, seed)
            columns[name] = pd.array(folds, "Int8")
        else:
            columns[name] = pd.array([None] * len(rows), "Int8")
    return rows.assign(**columns)
