"""Searches that train: killed and rerun, pruned, rejected, and a search of six trials as in the course report."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load, to_dict
from hms_dist.core.errors import JobError
from hms_dist.grid.recipe import LaunchConfig
from hms_dist.search.trial import Pruned, TrialRuns
from hms_dist.train.folder.record import read_metrics
from hms_dist.train.settings import TrainConfig

pytestmark = pytest.mark.slow


def alive(words):
    """Processes of this machine whose command line holds all `words`."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            command = Path(f"/proc/{entry}/cmdline").read_text().split("\0") if entry.isdigit() else []
        except OSError:
            continue
        if all(word in command for word in words):
            found.append(int(entry))
    return found


@pytest.fixture
def trial(spectrograms, tmp_path):
    """A trial of two folds, with options over the small recipe."""

    def make(**options):
        words = ["--config", "configs/train/seed_003.yaml", "--config", "configs/train/small.yaml", "--num_folds", "3"]
        words += [f"--{name}={value}" for name, value in options.items()]
        config = to_dict(load(TrainConfig, [*words, "--shards", "s", "--out", "o"]))
        kept = {name: value for name, value in config.items() if name not in ("shards", "out", "fold")}
        folder = tmp_path / "trial"
        return TrialRuns(folder=folder, config=kept, shards=str(spectrograms), folds=(0, 2), launch=LaunchConfig())

    return make


def test_a_trial_reports_every_epoch_of_every_fold_and_counts_by_their_best(trial):
    reported = []

    def report(step, kl):
        reported.append((step, kl))
        return True

    runs = trial()
    value = runs.train(report)
    found = [[line["val_kl"] for line in read_metrics(runs.folder / f"fold-{k}") if "val_kl" in line] for k in (0, 2)]
    assert reported == list(enumerate(found[0] + found[1]))
    assert value == (min(found[0]) + min(found[1])) / 2
    again = []
    assert runs.train(lambda step, kl: again.append((step, kl)) is None) == value
    assert again == reported


def test_a_trial_behind_stops_its_run_and_begins_no_other(trial):
    runs = trial(epochs=200)
    with pytest.raises(Pruned):
        runs.train(lambda step, kl: step < 1)
    epochs = [line for line in read_metrics(runs.folder / "fold-0") if "val_kl" in line]
    assert 2 <= len(epochs) < 100
    assert not (runs.folder / "fold-2").exists()
    assert not alive([str(runs.folder / "fold-0")])


def test_a_run_that_fails_is_named_with_its_log(trial):
    runs = trial(**{"optim.lr": 1e30})
    with pytest.raises(JobError, match=r"fold-0: the loss is .*; its log is .*fold-0\.log"):
        runs.train(lambda step, kl: True)


def test_six_trials_killed_on_the_way_by_two_jobs_at_once(search_words, repository, tmp_path, call):
    """A job is killed within a trial; two jobs continue, and the best of six is a recipe that trains."""
    study = tmp_path / "study"
    words = [*search_words, "--num_trials", "6", "--num_batches", "1", "--num_startup", "2", "--folds", "[0]"]
    command = [sys.executable, "-m", "hms_dist", "search", *words]
    first = subprocess.Popen(command, cwd=repository)
    while not any("loss" in line for line in read_metrics(study / "trials/0-000/fold-0")):
        assert first.poll() is None
        time.sleep(0.2)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    jobs = [subprocess.Popen(command, cwd=repository) for _ in range(2)]
    assert [job.wait(800) for job in jobs] == [0, 0]
    table = pd.read_csv(study / "trials.csv")
    assert table["trial"].tolist() == list(range(6))
    assert set(table["state"]) <= {"complete", "pruned"}
    for row in table[table["state"] == "complete"].to_dict("records"):
        metrics = read_metrics(study / f"trials/0-{row['trial']:03d}/fold-0")
        assert row["val_kl"] == min(line["val_kl"] for line in metrics if "val_kl" in line)
    assert not (tmp_path / "run").exists()
    best = ["--config", study / "best.yaml", "--shards", words[words.index("--shards") + 1], "--fold", "none"]
    call("train", *best, "--out", tmp_path / "run", "--epochs", 1)
    assert main(["search", *words]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(study / "trials.csv"), table)
