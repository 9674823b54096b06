"""The table of runs: what each state of a folder is called, and that the dead are flagged."""

import json
import os
import subprocess
import sys
import time

import pytest

from hms_dist.cli import main
from hms_dist.jobs.lease import DEAD_AFTER_S, acquire
from hms_dist.report.status import DAMAGED, DEAD, Status, find_runs, look, run
from hms_dist.train.folder.owner import LEASE_NAME


@pytest.fixture
def make(tmp_path):
    """Make a run folder as a run leaves it at some moment."""

    def begin(name, state=None, steps=(), slurm=None, **facts):
        folder = tmp_path / "runs" / name
        (folder / "checkpoints/step-00000001").mkdir(parents=True)
        (folder / "config.yaml").write_text("epochs: 4\n")
        (folder / "train.log").touch()
        if state:
            (folder / "status.json").write_text(json.dumps({"state": state, "exit_code": None, "time": 0, **facts}))
        if slurm:
            (folder / "environment.json").write_text(json.dumps({"slurm": slurm}))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in steps))
        return folder

    return begin


STEPS = (
    {"epoch": 0, "step": 5, "loss": 1.0}, {"epoch": 0, "step": 7, "val_kl": 0.9},
    {"epoch": 1, "step": 14, "val_kl": 0.4}, {"epoch": 2, "step": 15, "loss": 0.5},
)  # fmt: skip


def test_a_running_run(make):
    folder = make("a", "running", STEPS)
    with acquire(folder / LEASE_NAME):
        found = look(folder)
    assert (found.state, found.epoch, found.epochs, found.step, found.best_kl) == ("running", 3, 4, 15, 0.4)
    assert found.silent_s < DEAD_AFTER_S


@pytest.mark.parametrize("state", ["running", None])
def test_a_run_without_a_living_owner_is_dead(make, state):
    folder = make("a", state)
    assert look(folder).state == DEAD
    (folder / LEASE_NAME).write_text(
        '{"host": "n7", "machine": "x", "pid": 1, "job": "88_2", "nonce": "n", "attempt": 3}'
    )
    assert look(folder).state == ("running" if state else "starting")
    for path in folder.iterdir():
        then = time.time() - DEAD_AFTER_S - 100
        os.utime(path, (then, then))
    found = look(folder)
    assert (found.state, found.job) == (DEAD, "88_2.3")
    assert DEAD_AFTER_S < found.silent_s < DEAD_AFTER_S + 200


def test_a_run_killed_on_this_machine_is_dead_at_once(make):
    folder = make("a", "running")
    code = f"""
import os
from pathlib import Path
from hms_dist.jobs.lease import acquire
with acquire(Path({str(folder / LEASE_NAME)!r})):
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (folder / LEASE_NAME).exists()
    assert look(folder).state == DEAD


@pytest.mark.parametrize("state", ["stopped", "failed", "refused", "interrupted", "finished"])
def test_an_ended_run_keeps_its_recorded_state_until_somebody_takes_it_up(make, state):
    folder = make(
        "a", state, STEPS, {"SLURM_ARRAY_JOB_ID": "9", "SLURM_ARRAY_TASK_ID": "4", "SLURM_JOB_ID": "13"}, message="so"
    )
    found = look(folder)
    assert (found.state, found.job, found.message) == (state, "9_4.0", "so")
    with acquire(folder / LEASE_NAME):
        assert look(folder).state == ("finished" if state == "finished" else "starting")


def test_runs_are_found_at_any_depth_and_not_below_each_other(make, tmp_path):
    made = [make("x/seed-0"), make("x/seed-1"), make("y")]
    make("y/checkpoints/inner")
    assert list(find_runs(tmp_path)) == made
    assert list(find_runs(made[0])) == [made[0]]


def test_a_run_in_an_earlier_stage_is_one_run(make, tmp_path, capsys):
    """RUN has the lease, its stages have the numbers; RUN/config.yaml comes with the last stage."""
    run_folder = make("a", "running", stage="first")
    (run_folder / "config.yaml").rename(run_folder / "stages.yaml")
    (run_folder / "stages.yaml").write_text("stages: [{name: first}, {name: second}, {name: third}]\n")
    make("a/stages/first", "finished", STEPS[:1])
    assert (look(run_folder).state, look(run_folder).stage) == (DEAD, "first")
    make("a/stages/second", "running", STEPS)
    assert list(find_runs(tmp_path)) == [run_folder]
    with acquire(run_folder / LEASE_NAME):
        found = look(run_folder)
        assert main(["status", str(tmp_path)]) == 0
    assert (found.state, found.stage, found.epoch, found.epochs, found.step) == ("running", "second", 3, 4, 15)
    line = capsys.readouterr().out.splitlines()[1].split()
    assert (line[:4], line[-1]) == (["runs/a", "running", "3/4", "15"], "second")


def test_the_table_and_its_sums(make, tmp_path, capsys):
    make("grid/seed-0", "finished", STEPS)
    make("grid/seed-1", "running", STEPS[:1])
    make("grid/seed-2")
    assert main(["status", str(tmp_path / "runs")]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:3] == ["run", "state", "epoch"]
    assert lines[1][:5] == ["grid/seed-0", "finished", "3/4", "15", "0.4000"]
    assert lines[2][:5] == ["grid/seed-1", DEAD, "1/4", "5", "-"]
    assert lines[3][:5] == ["grid/seed-2", DEAD, "-", "-", "-"]
    assert lines[-1] == ["3", "runs:", "2", "DEAD,", "1", "finished"]


def test_json_has_a_line_a_run(make, tmp_path, capsys):
    make("a", "finished", STEPS)
    make("b", "failed", message="the loss is nan")
    run(Status(runs=tmp_path / "runs", json=True))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["best_kl"], first["run"]) == (0.4, str(tmp_path / "runs/a"))
    assert (second["state"], second["message"], second["step"]) == ("failed", "the loss is nan", None)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.yaml", "", "config.yaml: expected options, found None; the file is damaged"),
        ("config.yaml", "\0\0\0", "config.yaml: not valid YAML"),
        ("stages.yaml", "", "stages.yaml: expected a run with stages; the file is damaged"),
        ("stages.yaml", "stages: []", "stages.yaml: expected a run with stages; the file is damaged"),
        ("status.json", '{"sta', "status.json: has no state; the file is damaged"),
        ("status.json", '{"state": 5, "time": "x"}', "status.json: has no state; the file is damaged"),
        ("environment.json", '{"slurm": 5}', None),
        ("environment.json", "", None),
        ("metrics.jsonl", '{"epoch": 0, "step": 5, "loss": 1.0}\n\0\0\0', None),
        ("metrics.jsonl", "5\n", None),
        (".claim", "", None),
    ],
)
def test_a_damaged_run_does_not_hide_the_others(make, tmp_path, capsys, name, content, message):
    (make("a", "failed", STEPS) / name).write_text(content)
    make("b", "finished", STEPS)
    assert main(["status", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr()
    damaged, whole = (line.split() for line in printed.out.splitlines()[1:3])
    assert whole[:2] == ["b", "finished"]
    assert (damaged[1] == DAMAGED) == (message is not None)
    assert (message or "") in printed.err


def test_a_folder_without_runs_is_refused(tmp_path, capsys):
    assert main(["status", str(tmp_path)]) == 2
    assert "no runs here, expected folders with config.yaml; check the folder" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["status", str(tmp_path / "file")]) == 2
    assert "/file: is a file; expected a run folder, or one above run folders\n" in capsys.readouterr().err
    assert main(["status", str(tmp_path / "none")]) == 2
    line = f"hms-dist status: {tmp_path}/none: no such folder; expected a run folder, or one above run folders\n"
    assert capsys.readouterr().err == line
