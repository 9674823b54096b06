"""Commands killed at random moments and started again: the same result as without a kill, and nothing left behind.

Ten kills each of `stack`, `report`, `search`, and of one of two pipelines on one folder.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from hms_dist.results.predictions import read_predictions

pytestmark = pytest.mark.long

STORED = Path(__file__).parents[1] / "stored/5e6f9d5"
TABLES = ("--predictions", "oof_a.parquet", "oof_b.parquet")
NUM_KILLS = 10


@pytest.fixture
def folder(tmp_path):
    """Shard set, runs and tables that an earlier commit stored."""
    return Path(shutil.copytree(STORED, tmp_path / "stored"))


@pytest.fixture
def start(folder, repository):
    """Starts `hms-dist` in the folder, as a session of its own."""

    def call(*words):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
        command = [sys.executable, "-m", "hms_dist", *map(str, words)]
        return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, stderr=subprocess.PIPE)

    return call


def finish(process):
    _, errors = process.communicate(timeout=600)
    text = errors.decode()
    assert process.returncode == 0, text
    assert "Traceback" not in text
    return text


def kill(process, after_s, ends=(0,)):
    """Kill the process and all that it started, unless it ends before, with one of the exit codes `ends`; whether it
    was killed."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    errors = process.communicate()[1].decode()
    assert process.returncode in (*ends, -signal.SIGKILL), errors
    return process.returncode == -signal.SIGKILL


def timed(start, *words):
    """Seconds that a command takes without a kill."""
    begun = time.monotonic()
    finish(start(*words))
    return time.monotonic() - begun


def leftovers(folder):
    return sorted(path.name for path in folder.rglob(".*") if path.name.endswith((".tmp", ".dead", ".now")))


def values(path):
    return read_predictions(path).sort_values("key").reset_index(drop=True)


@pytest.mark.timeout(3600)
def test_a_killed_stack_comes_out_the_same(folder, start, rng):
    words = ["stack", *TABLES, "--labels", "set", "--model.hidden", "4", "--model.max_epochs", "60"]
    whole_s = timed(start, *words, "--out", "whole")
    numbers, num_killed = count(), 0
    while num_killed < NUM_KILLS:
        number = next(numbers)
        given = [*words, "--out", f"killed-{number}"]
        num_killed += kill(start(*given), rng.uniform(0.3, 1.0) * whole_s)
        finish(start(*given))
        pd.testing.assert_frame_equal(
            values(folder / f"killed-{number}/predictions.parquet"), values(folder / "whole/predictions.parquet")
        )
        assert leftovers(folder / f"killed-{number}") == []


@pytest.mark.timeout(3600)
def test_a_killed_report_leaves_the_page_before_or_the_whole_one(folder, start, rng):
    words = ["report", "--runs", "finished_run", "--shards", "set", "--out", "page.html"]
    whole_s = timed(start, *words)
    size = (folder / "page.html").stat().st_size
    num_killed = 0
    while num_killed < NUM_KILLS:
        num_killed += kill(start(*words), rng.uniform(0.3, 1.0) * whole_s)
        page = (folder / "page.html").read_text()
        assert page.rstrip().endswith("</html>")
        finish(start(*words))
        assert abs((folder / "page.html").stat().st_size - size) < 200  # the page shows when it was written
        assert leftovers(folder) == []


@pytest.mark.timeout(7200)
def test_a_search_killed_ten_times_has_every_trial_once(folder, start, rng):
    space = "{lr: {sets: optim.lr, low: 0.001, high: 0.01, log: true}}"
    words = ["search", "--shards", "set", "--configs", "train.yaml", "--space", space, "--folds", "0"]
    words += ["--options", "{epochs: 1}", "--num_trials", "4", "--num_batches", "1", "--num_startup", "2"]
    numbers, num_killed = count(), 0
    while num_killed < NUM_KILLS:
        given = [*words, "--out", f"found-{next(numbers)}"]
        while num_killed < NUM_KILLS and kill(start(*given), rng.uniform(4, 25)):
            num_killed += 1
        finish(start(*given))
        check_trials(folder / given[-1])


def check_trials(found):
    table = pd.read_csv(found / "trials.csv")
    assert table["trial"].tolist() == list(range(4))
    assert set(table["state"]) <= {"complete", "pruned"}
    for trial in table[table["state"] == "complete"]["trial"]:
        lines = (found / f"trials/0-{trial:03d}/fold-0/metrics.jsonl").read_text().splitlines()
        steps = [line["step"] for line in map(json.loads, lines) if "loss" in line]
        assert steps == list(range(1, len(steps) + 1))


@pytest.mark.timeout(3600)
def test_of_two_pipelines_on_one_folder_one_is_killed(folder, start, rng):
    steps = [
        {"name": "simulate", "command": "simulate --out {data}/{seed} --num_recordings 2 --seed {seed} --workers 1",
         "makes": "{data}/{seed}/train.csv", "each": "seed"},
        {"name": "render", "command": "render --data {data}/{seed} --out {out}/{seed} --workers 1",
         "makes": "{out}/{seed}/manifest.json", "each": "seed", "after": ["simulate"]},
    ]  # fmt: skip
    config = {"lists": {"seed": [3, 4]}, "steps": steps}
    (folder / "chain.yaml").write_text(yaml.safe_dump(config, width=1000))
    words = ["pipeline", "--config", "chain.yaml"]
    whole_s = timed(start, *words, "--data", "data-whole", "--out", "out-whole")
    expected = [np.sort([p.name for p in (folder / "out-whole/3").iterdir()]).tolist()]
    numbers, num_killed = count(), 0
    while num_killed < NUM_KILLS:
        number = next(numbers)
        given = [*words, "--data", f"data-{number}", "--out", f"out-{number}"]
        first, second = start(*given), start(*given)
        num_killed += kill(first, rng.uniform(0.2, 1.2) * whole_s, ends=(0, 2))
        _, errors = second.communicate(timeout=600)
        line = errors.decode().splitlines()[-1] if second.returncode else ""
        assert second.returncode in (0, 2), errors.decode()
        assert second.returncode == 0 or "is working on it" in line or "holds it" in line, line
        finish(start(*given))
        names = [np.sort([p.name for p in (folder / f"out-{number}/3").iterdir()]).tolist()]
        assert names == expected
        for seed in (3, 4):
            one, other = (folder / f"{out}/{seed}/index.parquet" for out in (f"out-{number}", "out-whole"))
            assert one.read_bytes() == other.read_bytes()
        assert leftovers(folder / f"out-{number}") == []
