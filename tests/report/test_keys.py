"""`hms-dist keys`: every filter against pandas on the label table; a table and bare keys; mistakes in one line."""

import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.datasets import HMS, HMS_CLASSES
from hms_dist.shards.index import read_index


@pytest.fixture(scope="module")
def frame(shard_set) -> pd.DataFrame:
    table = read_index(shard_set / "index.parquet").frame
    votes = table[list(HMS.vote_columns)].astype(int)
    return table.assign(most=[HMS_CLASSES[place] for place in votes.to_numpy().argmax(1)], number=votes.sum(axis=1))


@pytest.fixture
def listed(shard_set, capsys):
    """The lines that the command prints with these words, cut into cells."""

    def run(*words: str) -> list[list[str]]:
        assert main(["keys", str(shard_set), *words]) == 0
        return [line.split() for line in capsys.readouterr().out.splitlines()]

    return run


def test_the_table(listed, frame) -> None:
    head, *lines = listed("--num_folds", "3")
    assert head == ["key", "class", "votes", "patient", "fold"]
    expected = frame[["key", "most", "number", "patient_id", "fold_of_3"]].astype(str)
    assert lines == expected.to_numpy().tolist()


def test_filters(listed, frame) -> None:
    first = frame.iloc[0]
    common = frame["most"].mode()[0]
    for words, mask in (
        (["--classes", common], frame["most"] == common),
        (["--classes", common, first["most"]], frame["most"].isin([common, first["most"]])),
        (["--min_votes", "8"], frame["number"] >= 8),
        (["--max_votes", "7"], frame["number"] <= 7),
        (["--patients", str(first["patient_id"])], frame["patient_id"] == first["patient_id"]),
        (["--fold", "1", "--num_folds", "3"], frame["fold_of_3"] == 1),
        (
            ["--fold", str(first["fold_of_5"]), "--min_votes", str(first["number"])],
            (frame["fold_of_5"] == first["fold_of_5"]) & (frame["number"] >= first["number"]),
        ),
    ):
        if not mask.any():
            continue
        assert [key for (key,) in listed(*words, "--bare")] == frame["key"][mask].tolist(), words
    assert [key for (key,) in listed("--bare", "--limit", "2")] == frame["key"].head(2).tolist()


def test_keys_of_classes_that_are_yes_or_no(yes_no_index) -> None:
    from hms_dist.report.keys import Keys, key_table, listed_rows

    index = yes_no_index
    table = key_table(index, listed_rows(Keys(shards="x"), index), 3)
    assert table["class"].tolist() == ["a,c", "-", "b"]
    assert table["votes"].tolist() == [3, 1, 2]
    assert listed_rows(Keys(shards="x", classes=("b", "c")), index).tolist() == [0, 2]


def test_the_label_of_a_row_counts_unknown_classes(yes_no_index) -> None:
    """With dozens of classes, of which a row knows one, the names of the others would not fit into a title."""
    from hms_dist.report.show import label_texts

    found = [label_texts(yes_no_index, row) for row in range(3)]
    assert found == [["a yes", "b no", "c yes"], ["b no", "2 unknown"], ["a no", "b yes", "1 unknown"]]


@pytest.fixture
def yes_no_index(frame):
    """Three rows: a and c present; b absent and the others unknown; b present and a absent."""
    from hms_dist.datasets import Dataset
    from hms_dist.shards.index import Index

    dataset = Dataset(name="lab", classes=("a", "b", "c"), target="yes_no")
    votes = pd.DataFrame({"a_vote": [1, None, 0], "b_vote": [0, 0, 1], "c_vote": [1, None, None]}).astype("Int64")
    rows = frame.head(3).drop(columns=list(HMS.vote_columns)).reset_index(drop=True)
    return Index(pd.concat([rows, votes], axis=1), "index", dataset)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "lpx"], "classes: unknown 'lpx'; one of: seizure"),
        (["--patients", "3"], "patients: no row is of patient 3"),
        (["--fold", "7"], "fold: expected 0 to 4 of 5 folds, found 7"),
        (["--num_folds", "1"], "num_folds: expected 2 to 10, found 1"),
        (["--limit", "0"], "limit: expected at least 1, found 0"),
        (["--min_votes", "8", "--max_votes", "7"], "max_votes: expected at least min_votes, 8, found 7"),
        (["--min_votes", "1000"], "rows fits; leave out a filter"),
    ],
)
def test_mistakes(shard_set, capsys, words: list[str], message: str) -> None:
    assert main(["keys", str(shard_set), *words]) == 2
    assert message in capsys.readouterr().err
