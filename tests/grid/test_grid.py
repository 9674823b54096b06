"""Plans of grids, their errors, and real runs one after another: skipped, failed, resumed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing

import numpy as np
import pytest

from hms_dist.cli import main
from hms_dist.config.load import load
from hms_dist.core.errors import JobError, UserError
from hms_dist.core.files import write_json
from hms_dist.grid.grid import Grid, check, planned, run
from hms_dist.grid.recipe import LaunchConfig, Recipe
from hms_dist.grid.run_plan import check_seeds
from hms_dist.jobs.lease import acquire
from hms_dist.results.predictions import prediction_table, write_predictions
from hms_dist.shards.index import open_set
from hms_dist.train.data.run_data import open_run_data
from hms_dist.train.folder.owner import LEASE_NAME
from hms_dist.train.folder.record import is_finished, read_metrics
from hms_dist.train.folder.run_folder import read_config
from hms_dist.train.settings import TrainConfig

RECIPE = {"name": "a", "configs": ["seed_001", "small"]}


def grid(shards, tmp_path, *words, **recipe):
    recipes = [] if "--recipes" in words else ["--recipes", json.dumps([{**RECIPE, **recipe}])]
    given = ["--shards", str(shards), "--out", f"{tmp_path}/{{recipe}}/{{seed}}/{{fold}}"]
    return load(Grid, [*given, *recipes, *words])


def test_runs_are_recipes_times_seeds_times_folds(tmp_path):
    recipes = json.dumps([RECIPE, {**RECIPE, "name": "b", "options": {"num_folds": 2}}])
    words = ["--recipes", recipes, "--shards", "s", "--out", f"{tmp_path}/{{recipe}}-{{seed}}-{{fold}}"]
    found = planned(load(Grid, [*words, "--seeds", "[3, 4294967295]"]))
    names = [f"a-{s}-{k}" for s in (3, 2**32 - 1) for k in range(3)] + [
        f"b-{s}-{k}" for s in (3, 2**32 - 1) for k in range(2)
    ]
    assert [one.out.name for one in found] == names
    assert len(planned(load(Grid, [*words, "--folds", "none"]))) == 2
    assert [one.fold for one in planned(load(Grid, [*words, "--folds", "[1]"]))] == [1, 1]


def test_lists_and_runs_nothing(tmp_path, capsys):
    words = ["--shards", "s", "--recipes", json.dumps([RECIPE]), "--out", f"{tmp_path}/{{fold}}"]
    assert main(["grid", *words, "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["number", "recipe", "seed", "fold", "state", "folder"]
    assert lines[2].split() == ["1", "a", "0", "1", "open", f"{tmp_path}/1"]
    assert lines[4].startswith(
        "open, as an array: sbatch --array=0-2, of a script that runs this command with --number"
    )
    (tmp_path / "1").mkdir()
    (tmp_path / "1/status.json").write_text('{"state": "finished"}')
    assert main(["grid", *words, "--list"]) == 0
    assert "--array=0,2," in capsys.readouterr().out
    shutil.rmtree(tmp_path / "1")
    assert main(["grid", *words, "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in rows] == [0, 1, 2]
    assert rows[2]["words"][-4:] == ["--fold", "2", "--out", f"{tmp_path}/2"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("seeds", [[2**32], [-1], [28490463, 28446341235]])
def test_seeds_that_frameworks_would_fold_are_refused(seeds):
    with pytest.raises(ValueError, match="seeds: expected 0 to 4294967295"):
        check_seeds(seeds)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "[1, 2, 1]"], "seeds: 1 is listed twice, and the two runs would be the same"),
        (["--seeds", "[4294967296]"], "seeds: expected 0 to 4294967295, found 4294967296"),
        (["--out", "runs/{fold}"], None),
        (["--out", "runs/{fold}", "--seeds", "[1,2]"], "would share runs/0; add a placeholder that distinguishes them"),
        (["--out", "runs/{model}"], r"out: unknown place \{model\}; one of: \{recipe\}, \{seed\}, \{fold\}"),
        (["--out", "runs/{fold"], "is not a valid pattern"),
        (["--folds", "[3]"], "fold: expected 0 to 2"),
        (["--json"], "json: sets the format of --list"),
        (["--number", "1", "--list"], "number: list prints all"),
        (["--recipes", json.dumps([{**RECIPE, "options": {"seed": 1}}])], "'seed' of recipe 'a' is the grid's to set"),
        (["--recipes", json.dumps([{**RECIPE, "name": "a/b"}])], "recipes.name: expected a name"),
        (["--recipes", json.dumps([RECIPE, RECIPE])], "recipes: two have one name"),
        (["--recipes", json.dumps([{**RECIPE, "options": {"epoch": 1}}])], "unknown option 'epoch'"),
        (["--recipes", json.dumps([{"name": "a", "configs": []}])], "names no configuration file"),
    ],
)
def test_mistakes_are_reported_before_anything_runs(tmp_path, words, message):
    if message is None:
        assert planned(grid("s", tmp_path, *words))
        return
    with pytest.raises(UserError, match=message):
        planned(grid("s", tmp_path, *words))


def test_a_run_is_started_by_the_installed_package_or_the_program_that_is_named(repository):
    words = ["--config", "demo"]
    assert LaunchConfig().command(words) == [sys.executable, "-m", "hms_dist", "train", *words]
    launcher = (sys.executable, "{configs}/accelerate/cpu2.yaml")
    command = LaunchConfig(words=launcher, program=repository / "train.py").command(words)
    assert command == [sys.executable, f"{repository}/configs/accelerate/cpu2.yaml", f"{repository}/train.py", *words]


def test_a_missing_program_is_reported_before_anything_runs(tmp_path):
    """Not before: planning and listing do not need it."""
    missing = grid("s", tmp_path, "--launch.program", "train.pyc")
    assert planned(missing)
    with pytest.raises(UserError, match=r"no file train\.pyc; check the path, or leave it out for hms-dist train"):
        run(missing)


def test_a_missing_shard_set_is_reported_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="check --shards"):
        run(grid(tmp_path / "nothing", tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_number_beyond_the_runs_is_refused(tmp_path):
    with pytest.raises(UserError, match="--number: expected 0 to 2, found 3"):
        run(grid("s", tmp_path, "--number", "3"))


def test_options_become_words():
    recipe = Recipe(name="a", configs=("x.yaml",), options={"model.name": "b", "epochs": 2, "optim.betas": [0.9, 0.99]})
    expected = ["--config", "x.yaml", "--model.name=b", "--epochs=2", "--optim.betas=[0.9, 0.99]"]
    assert recipe.words == expected


@pytest.fixture
def finished(shard_set, tmp_path):
    """A grid of one run that learns from a table, and has finished; its options and the table's path."""
    index = open_set(shard_set)[1]
    table = tmp_path / "labels.parquet"
    write_predictions(table, prediction_table(index.frame, None, index.targets))
    options = {"overlay.file": str(table), "overlay.made_by_models": False}
    recipe = {"name": "a", "configs": ["configs/train/demo.yaml", "configs/train/small.yaml"], "options": options}
    words = [
        "--shards",
        str(shard_set),
        "--out",
        f"{tmp_path}/run",
        "--recipes",
        json.dumps([recipe]),
        "--folds",
        "[0]",
    ]
    (one,) = planned(load(Grid, words))
    with closing(open_run_data(load(TrainConfig, one.words))) as data:
        noted = {"shards": data.shards.manifest.fingerprint, "labels": data.labels.digest}
    (one.out / "final").mkdir(parents=True)
    write_json(one.out / "final/meta.json", noted)
    write_json(one.out / "status.json", {"state": "finished"})
    return words, table


def test_a_finished_run_is_passed_over_while_its_data_is_what_it_was(finished, shard_set, tmp_path):
    words, table = finished
    command = load(Grid, words)
    check(command)
    run(command)
    index = open_set(shard_set)[1]
    write_predictions(table, prediction_table(index.frame, None, np.full((len(index), 6), 1 / 6)))
    changed = f"{tmp_path}/run: finished, but {table} changed since; remove that folder to train it again"
    for call in (check, run):
        with pytest.raises(UserError, match=changed):
            call(command)
    table.unlink()
    run(command)


def test_a_finished_run_on_other_shards_is_refused(finished, shard_set, tmp_path):
    words, _ = finished
    meta = tmp_path / "run/final/meta.json"
    write_json(meta, {**json.loads(meta.read_text()), "shards": "those of last week"})
    with pytest.raises(UserError, match=f"{tmp_path}/run: finished, but {shard_set} changed since"):
        run(load(Grid, words))
    run(load(Grid, [word.replace('"overlay.file"', '"other_shards": true, "overlay.file"') for word in words]))


@pytest.mark.slow
def test_runs_what_is_open_and_names_what_failed(features, tmp_path, capfd):
    command = grid(features, tmp_path, "--folds", "[0, 1, 2]", options={"epochs": 1})
    runs = planned(command)
    run(grid(features, tmp_path, "--number", "1", options={"epochs": 1}))
    assert [one.state for one in runs] == ["open", "finished", "open"]
    before = (runs[1].out / "status.json").stat().st_mtime_ns
    (runs[0].out / "checkpoints").mkdir(parents=True)
    (runs[0].out / "checkpoints/step-00000001").write_text("no folder")
    with pytest.raises(JobError, match=f"1 of 3 runs did not finish: {runs[0].out} "):
        run(command)
    assert [one.finished for one in runs] == [False, True, True]
    assert (runs[1].out / "status.json").stat().st_mtime_ns == before
    assert read_config(runs[2].out).fold == 2
    assert "is finished" not in capfd.readouterr().out
    with pytest.raises(UserError, match=r"holds a run whose epochs .*differ; choose another --out"):
        planned(grid(features, tmp_path, options={"epochs": 2}))


def test_a_run_in_others_hands_is_named_with_its_owner_and_left_alone(features, tmp_path, monkeypatch):
    monkeypatch.setattr("hms_dist.jobs.lease.HEARTBEAT_S", 0.1)
    monkeypatch.setattr("hms_dist.grid.launch.DEAD_AFTER_S", 0.5)
    command = grid(features, tmp_path, "--folds", "[0]")
    (one,) = planned(command)
    one.out.mkdir(parents=True)
    owner = rf"1 of 1 runs did not finish: {one.out}: process {os.getpid()} on .* is working on it; rerun the same"
    with acquire(one.out / LEASE_NAME), pytest.raises(JobError, match=owner):
        run(command)
    assert list(one.out.iterdir()) == []


@pytest.mark.slow
def test_killed_it_takes_its_run_along_and_rerun_it_continues(features, tmp_path, repository):
    options = {"epochs": 300, "checkpoint_every": 1, "keep_checkpoints": 1}
    command = grid(features, tmp_path, "--folds", "[0]", options=options)
    (one,) = planned(command)
    recipes = json.dumps([{**RECIPE, "options": options}])
    words = ["--shards", str(features), "--out", f"{tmp_path}/{{recipe}}/{{seed}}/{{fold}}", "--recipes", recipes]
    started = [sys.executable, "-m", "hms_dist", "grid", *words, "--folds", "[0]"]
    process = subprocess.Popen(started, cwd=repository)
    while len(read_metrics(one.out)) < 6:
        assert process.poll() is None
        time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    ends = time.monotonic() + 240
    while one.state != "stopped":
        assert time.monotonic() < ends, one.state
        time.sleep(0.2)
    steps = len([line for line in read_metrics(one.out) if "loss" in line])
    process = subprocess.Popen(started, cwd=repository)
    while len([line for line in read_metrics(one.out) if "loss" in line]) <= steps:
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 1
    assert one.state == "stopped"
    assert not is_finished(one.out)
