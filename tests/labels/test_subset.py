"""The command: a table that render takes, counts, and its refusals."""

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.datasets import HMS_CONSENSUS as CONSENSUS_NAMES
from hms_dist.labels.subset import COLUMNS, Subset, derive
from hms_dist.labels.table import read_labels
from hms_dist.shards.index import read_index


@pytest.fixture
def table(recordings, tmp_path):
    """The simulated table with rows of every class."""
    frame = pd.read_csv(recordings / "train.csv")
    frame["expert_consensus"] = np.resize(list(CONSENSUS_NAMES), len(frame))
    frame.to_csv(tmp_path / "table.csv", index=False)
    return tmp_path / "table.csv"


def subset(recordings, out, rule, *words):
    return main(["subset", "--data", str(recordings), "--out", str(out), "--rule", rule, *words])


RULES = {
    "balanced": ("--rows_per_class", "1"), "high_vote": (), "golden": (), "eeg_sum": (), "spectrogram_sum": (),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_the_table_is_one_that_the_reader_takes(recordings, table, tmp_path, rule):
    out = tmp_path / "sub.csv"
    assert subset(recordings, out, rule, "--table", str(table), *RULES[rule]) == 0
    written, source = read_labels(out).frame, read_labels(table).frame
    assert 0 < len(written) <= len(source)
    columns = [*COLUMNS, *HMS.vote_columns]
    assert pd.read_csv(out).columns.tolist() == columns
    command = load(Subset, ["--data", str(recordings), "--out", str(out), "--rule", rule, *RULES[rule]])
    expected = derive(command, source).reset_index(drop=True)
    pd.testing.assert_frame_equal(written[columns], expected, check_dtype=False)


def test_the_summed_table_renders(recordings, tmp_path):
    out = tmp_path / "sub.csv"
    assert subset(recordings, out, "eeg_sum") == 0
    words = ["--data", str(recordings), "--table", str(out), "--out", str(tmp_path / "set")]
    assert main(["render", *words]) == 0
    index = read_index(tmp_path / "set/index.parquet")
    source = read_labels(recordings / "train.csv").frame
    assert sorted(index.frame["key"]) == sorted(f"{number}-0" for number in source["eeg_id"].unique())
    assert index.votes.sum() == source[list(HMS.vote_columns)].sum().sum()


def test_counts_before_and_after(recordings, table, tmp_path, capsys):
    words = ["--table", str(table), "--rows_per_class", "1"]
    assert subset(recordings, tmp_path / "sub.csv", "balanced", *words) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    source = pd.read_csv(table)
    assert lines[0] == ["before", "after"]
    for name, before, after in lines[1:7]:
        assert (int(before), int(after)) == ((source["expert_consensus"] == name).sum(), 1)
    assert lines[7] == ["rows", str(len(source)), "6"]
    assert [line[0] for line in lines[8:]] == ["eegs", "spectrograms", "patients"]
    assert lines[8][1] == str(source["eeg_id"].nunique())


def test_an_equal_table_is_left_and_another_refused(recordings, tmp_path, capsys):
    out = tmp_path / "sub.csv"
    assert subset(recordings, out, "golden") == 0
    before = out.stat().st_ino
    assert subset(recordings, out, "golden") == 0
    assert out.stat().st_ino == before
    content = out.read_bytes()
    assert subset(recordings, out, "high_vote", "--min_votes", "1") == 2
    assert out.read_bytes() == content
    assert f"{out}: another file is there already; choose another --out or remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["best"], "rule: unknown 'best'; one of: balanced, high_vote, golden, eeg_sum, spectrogram_sum"),
        (["golden", "--seed", "1"], "seed: rule golden does not use it; leave it out"),
        (["eeg_sum", "--min_votes", "3"], "min_votes: rule eeg_sum does not use it; leave it out"),
        (["high_vote", "--rows_per_class", "3"], "rows_per_class: rule high_vote does not use it; leave it out"),
        (["balanced", "--rows_per_class", "0"], "rows_per_class: expected at least 1, found 0"),
        (["golden", "--min_votes", "0"], "min_votes: expected at least 1, found 0"),
        (["balanced", "--seed", "-1"], "seed: expected 0 to 4294967295, found -1"),
        (["golden", "--min_votes", "5000"], "train.csv: rule golden leaves none of"),
        (["balanced"], "rows_per_class: 50 rows of each class needed, Seizure has"),
    ],
)
def test_refusals(recordings, tmp_path, capsys, words, message):
    assert subset(recordings, tmp_path / "sub.csv", *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "sub.csv").exists()


def test_tables_without_votes_and_places_that_cannot_be_written(recordings, tmp_path, capsys):
    pd.read_csv(recordings / "train.csv")[["spectrogram_id", "eeg_id", "patient_id"]].drop_duplicates().to_csv(
        tmp_path / "test.csv", index=False
    )
    assert subset(recordings, tmp_path / "sub.csv", "golden", "--table", str(tmp_path / "test.csv")) == 2
    assert "test.csv: no votes; subset expects a labelled table such as train.csv" in capsys.readouterr().err
    assert subset(recordings, tmp_path / "no/sub.csv", "golden") == 2
    assert (
        "sub.csv: cannot write this file (No such file or directory); choose another --out" in capsys.readouterr().err
    )
    assert subset(recordings, tmp_path, "golden") == 2
    assert "cannot write this file (Is a directory); choose another --out" in capsys.readouterr().err


def test_a_rule_of_no_such_name_is_reported_from_python_too(recordings, tmp_path):
    with pytest.raises(UserError, match="rule: unknown 'best'"):
        Subset(data=recordings, out=tmp_path / "sub.csv", rule="best")
