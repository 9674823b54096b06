"""Tables of predictions on disk: a submission is one that Kaggle takes, and what it would refuse is refused here."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.results.predictions import prediction_table, read_predictions, write_predictions

HEADER = "eeg_id,seizure_vote,lpd_vote,gpd_vote,lrda_vote,grda_vote,other_vote"
"""The first line of the competition's sample_submission.csv."""


def table(rng, num_rows=20):
    ids = pd.DataFrame({"eeg_id": rng.choice(10**6, num_rows, replace=False)})
    ids["eeg_sub_id"] = 0
    ids["key"] = [f"{eeg_id}-0" for eeg_id in ids["eeg_id"]]
    return prediction_table(ids, None, rng.dirichlet(np.full(6, 0.1), len(ids)))


def test_a_submission_has_the_sample_submissions_columns(tmp_path, rng):
    made = table(rng)
    write_predictions(tmp_path / "s.csv", made)
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == HEADER
    again = read_predictions(tmp_path / "s.csv").set_index("eeg_id")
    assert again.index.is_monotonic_increasing
    expected = made.set_index("eeg_id").loc[again.index, list(CLASSES)]
    np.testing.assert_allclose(again[list(CLASSES)], expected, rtol=1e-15)


@pytest.mark.parametrize("name", ["s.csv", "s.parquet"])
@pytest.mark.parametrize(
    ("corrupt", "found"),
    [
        (lambda values: np.r_[values[:5], 1 + values[5]], r"\(1 such rows in all\)"),
        (lambda values: np.r_[-values[0] - 0.1, values[1:5], values[5] + 2 * values[0] + 0.1], "found -"),
        (lambda values: values * np.nan, "found nan, nan"),
        (lambda values: values * 0.99, "sum of 1, found"),
    ],
)
def test_what_kaggle_refuses_is_refused_by_row(tmp_path, name, corrupt, found, rng):
    made = table(rng)
    row = rng.integers(len(made))
    made.loc[row, list(CLASSES)] = corrupt(made.loc[row, list(CLASSES)].to_numpy(float))
    with pytest.raises(UserError, match=f"{name}: row {made['key'][row]}: expected six probabilities.*{found}"):
        write_predictions(tmp_path / name, made)
    assert not (tmp_path / name).exists()


def test_two_rows_of_an_eeg_make_no_submission(tmp_path, rng):
    made = table(rng)
    with pytest.raises(UserError, match=r"a submission takes one row per EEG, found several; write a .parquet"):
        write_predictions(tmp_path / "s.csv", pd.concat([made, made[:1]]))
