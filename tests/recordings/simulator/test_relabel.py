"""Labels of other data sets for simulated recordings, against plain loops over the rows."""

from math import comb

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.datasets import HMS, Dataset, read_dataset, write_dataset
from hms_dist.recordings.simulator.relabel import UNKNOWN_SHARE, relabelled

TEXTS = {"seizure": "fast", "lpd": "fast", "gpd": "fast", "lrda": "slow", "grda": "slow", "other": "slow"}


def rows(rng: np.random.Generator, num_rows: int = 60) -> pd.DataFrame:
    truth = rng.dirichlet(np.ones(6), num_rows)
    votes = np.stack([rng.multinomial(rng.integers(1, 20), shares) for shares in truth])
    columns = dict(zip(HMS.vote_columns, votes.T, strict=True)) | dict(zip(HMS.classes, truth.T, strict=True))
    return pd.DataFrame({"eeg_id": np.arange(num_rows), "eeg_sub_id": 0, "expert_consensus": "GPD", **columns})


def test_votes_and_shares_of_a_class_are_those_of_its_patterns(rng: np.random.Generator) -> None:
    given, dataset = rows(rng), Dataset(name="lab", classes=("slow", "fast"), label_texts=TEXTS)
    found = relabelled(given, dataset, 0)
    assert found.columns.tolist() == ["eeg_id", "eeg_sub_id", "slow_vote", "fast_vote", "slow", "fast"]
    for suffix in ("_vote", ""):
        expected = given[[f"{name}{suffix}" for name in ("seizure", "lpd", "gpd")]].sum(axis=1)
        np.testing.assert_allclose(found[f"fast{suffix}"].astype(float), expected)
    np.testing.assert_allclose(found["slow"] + found["fast"], 1)


def test_yes_is_a_third_of_the_votes_and_the_truth_its_probability(rng: np.random.Generator) -> None:
    given, dataset = rows(rng), Dataset(name="lab", classes=("slow", "fast"), target="yes_no", label_texts=TEXTS)
    found = relabelled(given, dataset, 3)
    total = given[list(HMS.vote_columns)].sum(axis=1)
    for name, patterns in (("fast", ("seizure", "lpd", "gpd")), ("slow", ("lrda", "grda", "other"))):
        votes, share = (given[[f"{one}{end}" for one in patterns]].sum(axis=1) for end in ("_vote", ""))
        known = found[f"{name}_vote"].notna()
        assert (found[f"{name}_vote"][known] == (votes >= total / 3 - 1e-9)[known]).all()
        for row in range(0, len(given), 7):
            count, p = total[row], share[row]
            least = next(number for number in range(count + 1) if number >= count / 3 - 1e-9)
            tail = sum(comb(count, k) * p**k * (1 - p) ** (count - k) for k in range(least, count + 1))
            assert found[name][row] == pytest.approx(tail)
    unknown = relabelled(rows(rng, 2000), dataset, 3)[list(dataset.vote_columns)].isna().to_numpy().mean()
    assert unknown == pytest.approx(UNKNOWN_SHARE, abs=0.05)
    pd.testing.assert_frame_equal(found, relabelled(given, dataset, 3))
    assert not found.equals(relabelled(given, dataset, 4))


def test_the_command_writes_the_labels_of_a_description(tmp_path, capsys) -> None:
    dataset = Dataset(name="lab", classes=("slow", "fast"), label_texts=TEXTS)
    write_dataset(tmp_path, dataset)
    given = ["simulate", "--num_recordings", "1", "--dataset", str(tmp_path / "dataset.yaml")]
    assert main([*given, "--out", str(tmp_path / "lab")]) == 0
    assert read_dataset(tmp_path / "lab") == dataset
    assert {"slow_vote", "fast_vote"} <= set(pd.read_csv(tmp_path / "lab/train.csv"))
    assert pd.read_parquet(tmp_path / "lab/truth.parquet").columns.tolist()[2:] == ["slow", "fast"]
    write_dataset(tmp_path, Dataset(name="lab", classes=("slow", "fast"), label_texts={"lpd": "fast"}))
    assert main([*given, "--out", str(tmp_path / "other")]) == 2
    assert "labels: expected a class for each simulated pattern (seizure, lpd" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
