"""Shares of the votes before and after grouping and rebalancing: computed by hand, measured on a selection, and
drawn."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hms_dist.cli import main
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CONSENSUS as CONSENSUS_NAMES
from hms_dist.labels.vote_shares import COLOURS, vote_shares
from hms_dist.shards.index import read_index
from hms_dist.stream.rows.selections import SelectionConfig, select


def table(votes):
    return pd.DataFrame(votes, columns=list(HMS.vote_columns))


def test_shares_by_hand():
    before = table([[3, 1, 0, 0, 0, 0], [0, 4, 0, 0, 0, 0]])
    after = table([[2, 0, 0, 0, 0, 0], [0, 6, 0, 0, 0, 2]])
    found = vote_shares(before, after)
    np.testing.assert_allclose(found["before"], [3 / 8, 5 / 8, 0, 0, 0, 0])
    np.testing.assert_allclose(found["after"], [0.2, 0.6, 0, 0, 0, 0.2])
    # seizure and other are the rarest (2 votes); LPD's rows stay with probability 2 / 6
    np.testing.assert_allclose(found["rebalanced"], np.array([2, 2, 0, 0, 0, 2 / 3]) / (4 + 2 / 3))


def test_rebalanced_is_what_the_selection_leaves_on_average(shard_set):
    index = read_index(shard_set / "index.parquet")
    rows, selection = np.arange(len(index)), SelectionConfig(rule="class_rebalanced")
    votes = sum(index.votes[select(index, rows, selection, seed=0, epoch=epoch)].sum(axis=0) for epoch in range(400))
    expected = vote_shares(table(index.votes), table(index.votes))["rebalanced"]
    np.testing.assert_allclose(votes / votes.sum(), expected, atol=0.02)


def test_subset_writes_them_as_a_table_and_a_picture(recordings, tmp_path, capsys):
    chart = tmp_path / "votes.png"
    words = ["--data", str(recordings), "--rule", "spectrogram_sum", "--out", str(tmp_path / "grouped.csv")]
    assert main(["subset", *words, "--vote_shares", str(chart)]) == 0
    found = pd.read_csv(tmp_path / "votes.csv", index_col="class")
    assert found.index.tolist() == list(CONSENSUS_NAMES)
    expected = vote_shares(pd.read_csv(recordings / "train.csv"), pd.read_csv(tmp_path / "grouped.csv"))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(found.sum(), 1, atol=1e-5)
    pixels = np.asarray(Image.open(chart))
    heights = [(pixels[84:] == colour).all(axis=-1).any(axis=1).sum() for colour in COLOURS]
    tallest = found.max().to_numpy()
    np.testing.assert_allclose(np.array(heights) / max(heights), tallest / tallest.max(), atol=0.02)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("votes.jpg", "vote_shares: expected a name ending in .png, found votes.jpg"),
        ("grouped.png", "vote_shares: its table beside it would have the name of --out; choose another name"),
        ("no/votes.png", "votes.png: cannot write this file (No such file or directory); choose another --vote_shares"),
    ],
)
def test_names_that_cannot_be(recordings, tmp_path, capsys, name, message):
    words = ["--data", str(recordings), "--rule", "spectrogram_sum", "--out", str(tmp_path / "grouped.csv")]
    assert main(["subset", *words, "--vote_shares", str(tmp_path / name)]) == 2
    assert message in capsys.readouterr().err
