"""Label tables, indexes and prediction tables of other classes: unknown votes, folds, and what is refused."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS, Dataset, Submission, write_dataset
from hms_dist.labels.table import patient_folds, read_labels, targets_of
from hms_dist.results.predictions import dataset_of_table, prediction_table, read_predictions, write_predictions
from hms_dist.shards.index import Index, fold_column, index_schema
from hms_dist.shards.index_values import row_fault

LAB = Dataset(name="lab", classes=("spikes", "slow"), target="yes_no")
FOUR = Dataset(name="four", classes=("a", "b", "c", "d"), submission=Submission(key="recording", column="s{number}"))


def table(dataset: Dataset, votes: list[list[object]]) -> pd.DataFrame:
    rows = np.arange(len(votes))
    frame = pd.DataFrame(
        {
            "eeg_id": rows, "eeg_sub_id": 0, "eeg_label_offset_seconds": 0.0, "spectrogram_id": rows,
            "spectrogram_label_offset_seconds": 0.0, "patient_id": rows,
        }
    )  # fmt: skip
    return frame.assign(**dict(zip(dataset.vote_columns, np.array(votes, object).T, strict=True)))


@pytest.fixture
def read(tmp_path):
    def make(dataset: Dataset, votes: list[list[object]]):
        table(dataset, votes).to_csv(tmp_path / "train.csv", index=False)
        return read_labels(tmp_path / "train.csv", dataset)

    return make


def test_an_empty_vote_is_unknown_and_never_a_zero(read) -> None:
    labels = read(LAB, [[1, ""], ["", 0], [3, 0], ["", ""]])
    assert labels.dataset == LAB
    votes = labels.frame[list(LAB.vote_columns)]
    assert votes.isna().to_numpy().tolist() == [[False, True], [True, False], [False, False], [True, True]]
    found = targets_of(votes.to_numpy(np.float64, na_value=np.nan), LAB)
    np.testing.assert_array_equal(found, [[1, np.nan], [np.nan, 0], [1, 0], [np.nan, np.nan]])
    index = Index(labels.frame, "index", LAB)
    np.testing.assert_array_equal(index.targets, found)
    assert index.labelled
    assert index.num_voters.tolist() == [1, 1, 2, 0]
    with pytest.raises(UserError, match=r"its classes are independent \(target yes_no\)"):
        _ = index.votes


@pytest.mark.parametrize(
    ("dataset", "votes", "message"),
    [
        (LAB, [["", ""], ["", ""]], "every vote is empty, so no class is known in any row"),
        (LAB, [[1, "maybe"], [0, 0]], "row 2, column slow_vote: expected a number of at least 0, found 'maybe'"),
        (LAB, [[1, -1]], "row 2, column slow_vote: expected a number of at least 0, found '-1'"),
        (FOUR, [[1, 0, 0, ""]], "row 2, column d_vote: expected a number of at least 0, found ''"),
        (FOUR, [[1, 0, 0, 0], [0, 0, 0, 0]], "row 3: no votes at all"),
    ],
)
def test_impossible_votes_are_refused(read, dataset, votes, message) -> None:
    with pytest.raises(UserError, match=message):
        read(dataset, votes)


def test_a_table_of_other_classes_names_the_missing_column(tmp_path) -> None:
    table(FOUR, [[1, 0, 0, 0]]).drop(columns="c_vote").to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(UserError, match=r"column c_vote is missing; expected eeg_id, .*a_vote, b_vote, c_vote, d_vote"):
        read_labels(tmp_path / "train.csv", FOUR)


def test_folds_spread_the_rows_with_a_class_also_where_many_are_unknown(rng: np.random.Generator) -> None:
    votes = rng.choice([0.0, 1.0, np.nan], (300, 2), p=[0.6, 0.1, 0.3])
    folds = patient_folds(votes, np.arange(300), 5, 0)
    found = np.bincount(folds[votes[:, 0] == 1], minlength=5)
    assert found.sum() == (votes[:, 0] == 1).sum()
    assert found.max() - found.min() <= 2


def test_an_index_with_unknown_votes_is_valid_for_yes_or_no_alone() -> None:
    def faulty(dataset: Dataset) -> str | None:
        frame = table(dataset, [[1, None], [None, 0]]).assign(key=["0-0", "1-0"], shard=0)
        frame["eeg_fingerprint"] = frame["spectrogram_fingerprint"] = "10-00000000"
        frame = frame.assign(**{fold_column(number): None for number in range(2, 11)})
        return row_fault(pa.Table.from_pandas(frame, index_schema([], dataset), preserve_index=False), [2], dataset)

    assert faulty(LAB) is None
    assert faulty(Dataset(name="lab", classes=LAB.classes)) == "column spikes_vote is null in some of the rows"


def test_tables_of_predictions_name_their_data_set(tmp_path, rng: np.random.Generator) -> None:
    ids = pd.DataFrame({"key": ["1-0", "2-0"], "eeg_id": [1, 2], "eeg_sub_id": 0})
    values = rng.random((2, 2))
    path = tmp_path / "lab.parquet"
    write_predictions(path, prediction_table(ids, None, values, LAB), (), LAB)
    assert dataset_of_table(path) == LAB
    np.testing.assert_array_equal(read_predictions(path)[["spikes", "slow"]], values)
    with pytest.raises(
        UserError, match=r"lab.parquet: predicts the classes of lab \(spikes, slow\), expected those of"
    ):
        read_predictions(path, HMS)
    with pytest.raises(UserError, match="expected those of lab"):
        read_predictions(path, Dataset(name="lab", classes=LAB.classes))
    values[0, 0] = 1.5
    with pytest.raises(UserError, match=r"row 1-0: expected two probabilities, found 1.5"):
        write_predictions(path, prediction_table(ids, None, values, LAB), (), LAB)
    shares = prediction_table(ids, None, rng.random((2, 4)), FOUR)
    np.testing.assert_allclose(shares[list(FOUR.classes)].sum(axis=1), 1)
    write_predictions(tmp_path / "s.csv", shares, (), FOUR)
    assert pd.read_csv(tmp_path / "s.csv").columns.tolist() == ["recording", "s0", "s1", "s2", "s3"]
    again = read_predictions(tmp_path / "s.csv", FOUR)
    np.testing.assert_allclose(again[list(FOUR.classes)], shares[list(FOUR.classes)])
    with pytest.raises(UserError, match=r"s.csv: column eeg_id is missing"):
        read_predictions(tmp_path / "s.csv")


def test_subset_counts_votes_and_so_refuses_yes_or_no(tmp_path, capsys) -> None:
    from hms_dist.cli import main

    write_dataset(tmp_path, LAB)
    table(LAB, [[1, 0]]).to_csv(tmp_path / "train.csv", index=False)
    words = ["subset", "--data", str(tmp_path), "--out", str(tmp_path / "s.csv"), "--rule", "high_vote"]
    assert main(words) == 2
    assert "target yes_no: the rules of subset count votes" in capsys.readouterr().err


def test_subset_sums_the_votes_of_other_classes(tmp_path, capsys) -> None:
    from hms_dist.cli import main

    write_dataset(tmp_path, FOUR)
    frame = table(FOUR, [[1, 0, 0, 2], [0, 4, 0, 1], [9, 1, 0, 0]]).assign(spectrogram_id=[5, 5, 6])
    frame.to_csv(tmp_path / "train.csv", index=False)
    words = ["subset", "--data", str(tmp_path), "--out", str(tmp_path / "s.csv"), "--rule", "spectrogram_sum"]
    assert main([*words, "--vote_shares", str(tmp_path / "shares.png")]) == 0
    found = pd.read_csv(tmp_path / "s.csv")
    assert found[list(FOUR.vote_columns)].to_numpy().tolist() == [[1, 4, 0, 3], [9, 1, 0, 0]]
    assert "expert_consensus" not in found
    assert pd.read_csv(tmp_path / "shares.csv")["class"].tolist() == list(FOUR.classes)
