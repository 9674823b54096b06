"""Tables that a user hands in have exact ids, each column once, and no booleans for probabilities."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CLASSES as CLASSES
from hms_dist.predict.score import Score, scored
from hms_dist.results.predictions import read_predictions, read_truth
from hms_dist.shards.index import read_index
from hms_dist.stream.rows.row_tables import read_row_table

BIG = 2**53 + 1
HEADER = ",".join(["eeg_id", *HMS.vote_columns])
SHARES = "0.5,0.1,0.1,0.1,0.1,0.1"


def submission(path, *ids, shares=SHARES, header=HEADER):
    path.write_text("\n".join([header, *(f"{one},{shares}" for one in ids)]) + "\n")
    return path


def test_ids_beyond_the_exact_floats_stay_themselves_beside_a_float(tmp_path):
    words = [str(submission(tmp_path / name, BIG, "5.0", "3.911565283e9")) for name in ("a.csv", "b.csv")]
    assert main(["ensemble", "--predictions", *words, "--out", str(tmp_path / "out.csv")]) == 0
    written = pd.read_csv(tmp_path / "out.csv", dtype=str)["eeg_id"].tolist()
    assert written == ["5", "3911565283", str(BIG)]


def test_an_id_written_as_a_float_is_found_among_the_labels(tmp_path, recordings):
    labels = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    for name, ids in (("ints.csv", labels["eeg_id"]), ("floats.csv", labels["eeg_id"].map("{}.0".format))):
        submission(tmp_path / name, *ids)
    one, other = (
        scored(Score(predictions=tmp_path / name, labels=tmp_path / "labels.csv", num_draws=10))
        for name in ("ints.csv", "floats.csv")
    )
    assert one == other


@pytest.mark.parametrize(
    ("corrupted", "message"),
    [
        ({"ids": ("7", "8.5")}, r"s.csv: row 3, column eeg_id: expected an integer, found '8.5'"),
        ({"ids": ("7", "")}, r"s.csv: row 3, column eeg_id: expected a number of at least 0, found ''"),
        (
            {"ids": ("7", "9223372036854775808")},
            r"row 3, column eeg_id: expected an integer of at most 92233720368",
        ),
        ({"ids": ("7",), "header": f"{HEADER},lpd_vote", "shares": f"{SHARES},0"}, "column lpd_vote appears more than"),
        (
            {"ids": ("7",), "header": f"eeg_id,{HEADER}", "shares": f"7,{SHARES}"},
            "column eeg_id appears more than once",
        ),
        ({"ids": ("7",), "shares": "True,False,False,False,False,False"}, "column seizure_vote: .*found 'True'"),
        ({"ids": ("7",), "shares": "nan,0,0,0,0,0"}, "row 2, column seizure_vote: expected a number .*found 'nan'"),
        ({"ids": (str(BIG), f"{BIG}.0")}, rf"eeg_id {BIG} appears twice"),
    ],
)
def test_what_a_submission_may_not_hold(tmp_path, corrupted, message):
    ids = corrupted.pop("ids")
    with pytest.raises(UserError, match=message):
        read_predictions(submission(tmp_path / "s.csv", *ids, **corrupted))


def stored(path, **columns):
    frame = pd.DataFrame({"key": ["7-0", "8-0"], "eeg_id": [7, 8], "eeg_sub_id": [0, 0], "fold": [0, 0]})
    for name in CLASSES:
        frame[name] = [1 / 6, 1 / 6]
    frame.assign(**columns).to_parquet(path)
    return path


def test_ids_stored_as_floats_are_whole_numbers_again(tmp_path):
    found = read_predictions(stored(tmp_path / "p.parquet", eeg_id=[7.0, 8.0], fold=[0.0, np.nan]))
    assert found["eeg_id"].dtype == np.int64
    assert found["fold"].tolist() == [0, pd.NA]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"eeg_id": [7.0, 8.5]}, "row 1, column eeg_id: expected an integer, found 8.5"),
        ({"eeg_id": [7.0, 2.0**60]}, "row 1, column eeg_id: 1152921504606846976 is stored as a float, which cannot"),
        ({"eeg_id": [7.0, np.nan]}, "row 1, column eeg_id: expected an integer, found nan"),
        ({"eeg_id": [7.0, np.inf]}, "row 1, column eeg_id: expected an integer, found inf"),
        ({"eeg_id": pd.array([7, 2**64 - 1], "UInt64")}, "row 1, column eeg_id: expected an integer"),
        ({"eeg_id": [True, False]}, "column eeg_id: expected numbers, found bool"),
        ({"lpd": [True, False]}, "column lpd: expected numbers, found bool"),
        ({"fold": ["0", "1"]}, "column fold: expected numbers, found"),
    ],
)
def test_what_a_stored_table_may_not_hold(tmp_path, columns, message):
    with pytest.raises(UserError, match=f"p.parquet: {message}"):
        read_predictions(stored(tmp_path / "p.parquet", **columns))


def test_every_reader_of_tables_reads_ids_so(tmp_path, shard_set):
    """Overlays and filters as CSV; the truth."""
    index = read_index(shard_set / "index.parquet")
    keys = index.frame["key"].iloc[:2].tolist()
    lines = [f"key,fold,{','.join(CLASSES)}", f"{keys[0]},1.0,{SHARES}", f"{keys[1]},,{SHARES}"]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    table = read_row_table([tmp_path / "t.csv"], index, ["fold"])
    assert table.frame["fold"].tolist() == [1, pd.NA]
    (tmp_path / "t.csv").write_text("\n".join([lines[0], lines[1].replace("1.0", "1.5")]))
    with pytest.raises(UserError, match=r"t.csv: row 2, column fold: expected an integer, found '1.5'"):
        read_row_table([tmp_path / "t.csv"], index, ["fold"])
    truth = pd.read_parquet(stored(tmp_path / "x.parquet")).drop(columns="fold")
    truth.assign(eeg_id=[7.0, 7.5]).to_parquet(tmp_path / "truth.parquet")
    with pytest.raises(UserError, match=r"truth.parquet: row 1, column eeg_id: expected an integer"):
        read_truth(tmp_path / "truth.parquet")
