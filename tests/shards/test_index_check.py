"""Indexes whose hash fits and whose rows are wrong: counts, order, keys, columns, labels."""

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from hms_dist.rendering.find_faults import find_faults
from hms_dist.shards.index import read_index
from hms_dist.shards.index_check import index_faults, label_faults
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.schema import INDEX_NAME

TABLE = Path("train.csv")


def texts(tiny):
    path = tiny.folder / INDEX_NAME
    return [fault.text for fault in index_faults(path, read_index(path), read_manifest(tiny.folder))]


def cell(row, column, change):
    def respell(rows):
        rows.loc[row, column] = change(rows.loc[row, column])
        return rows

    return respell


def test_a_lost_row(tiny):
    tiny.respell(lambda rows: rows.drop(index=5))
    assert texts(tiny) == [
        "expected 11 rows, found 10",
        "column shard: the shards have other numbers of samples, or another order, than in the manifest",
    ]


def test_rows_of_another_shard(tiny):
    tiny.respell(cell(0, "shard", lambda shard: 1))
    assert texts(tiny) == [
        "column shard: the shards have other numbers of samples, or another order, than in the manifest"
    ]


def test_a_key_that_is_not_its_ids(tiny):
    own = read_index(tiny.folder / INDEX_NAME).frame["key"].iloc[3]
    tiny.respell(cell(3, "key", lambda key: "1-2"))
    assert texts(tiny) == [f"key 1-2 is in the row of {own}"]
    assert any("has key" in str(fault) or "is not at bytes" in str(fault) for fault in find_faults(tiny.folder))


def test_a_key_twice(tiny):
    first = read_index(tiny.folder / INDEX_NAME).frame.iloc[0]

    def twice(rows):
        rows.loc[7, ["key", "eeg_id", "eeg_sub_id"]] = first[["key", "eeg_id", "eeg_sub_id"]].to_numpy()
        return rows

    tiny.respell(twice)
    assert texts(tiny) == [f"key {first['key']} appears twice"]


def test_columns_that_do_not_belong(tiny):
    path = tiny.folder / INDEX_NAME
    table = pq.read_table(path)
    pq.write_table(table.append_column("colour", table["key"]), path)
    assert texts(tiny) == ["columns differ from those that the manifest implies: colour"]
    pq.write_table(table.drop_columns(["power.crc32"]), path)
    assert texts(tiny) == ["columns differ from those that the manifest implies: power.crc32"]
    pq.write_table(table.select(table.column_names[::-1]), path)
    assert texts(tiny) == ["columns differ from those that the manifest implies: order"]


class TestLabels:
    """The index beside the label table."""

    def faults(self, tiny, labels, rejected=frozenset()):
        path = tiny.folder / INDEX_NAME
        return [fault.text for fault in label_faults(path, read_index(path), labels, TABLE, set(rejected))]

    def test_equal_in_any_order(self, rng, tiny):
        assert self.faults(tiny, tiny.labels.sample(frac=1, random_state=rng)) == []

    @pytest.mark.parametrize(
        "column",
        ["spectrogram_id", "patient_id", "spectrogram_label_offset_seconds", "eeg_label_offset_seconds", "other_vote"],
    )
    def test_one_cell(self, tiny, column):
        labels = tiny.labels.reset_index(drop=True)
        key = f"{labels.loc[4, 'eeg_id']}-{labels.loc[4, 'eeg_sub_id']}"
        found = labels.loc[4, column]
        labels.loc[4, column] += 1
        assert self.faults(tiny, labels) == [f"{key}: column {column} is {found}, in train.csv {labels.loc[4, column]}"]

    def test_rows_that_one_side_lacks(self, tiny):
        gone = tiny.labels[["eeg_id", "eeg_sub_id"]].iloc[0]
        key = f"{gone['eeg_id']}-{gone['eeg_sub_id']}"
        assert self.faults(tiny, tiny.labels.iloc[1:]) == [f"{key} is not in train.csv"]
        more = pd.concat([tiny.labels, tiny.labels.iloc[[0]].assign(eeg_id=9)])
        assert self.faults(tiny, more) == [f"9-{gone['eeg_sub_id']} is missing; train.csv has it"]
        assert self.faults(tiny, more, {f"9-{gone['eeg_sub_id']}"}) == []

    def test_votes_on_one_side_only(self, tiny):
        labels = tiny.labels.assign(lpd_vote=pd.array([None] * len(tiny.labels), "Int64"))
        faults = self.faults(tiny, labels)
        assert len(faults) == len(labels)
        assert all("column lpd_vote is" in fault and "in train.csv <NA>" in fault for fault in faults)
