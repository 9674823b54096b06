"""Training as Slurm jobs: two nodes, warnings in mid-epoch, lost nodes. The result is that of an undisturbed run."""

import json
import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file

from hms_dist.jobs.lease import read_owner
from hms_dist.report.status import look
from hms_dist.train.folder.owner import LEASE_NAME
from hms_dist.train.folder.record import read_metrics

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]
EPOCHS = ("--epochs", "6")
"""42 steps take some seconds, too long to end while a test looks on."""


def losses(run):
    return [line["loss"] for line in read_metrics(run) if "loss" in line]


def status(run):
    return json.loads((run / "status.json").read_text())


def owner(run):
    return read_owner(run / LEASE_NAME)


def reached(run, step):
    """The condition that a run goes and has logged so many steps."""
    return lambda: len(losses(run)) >= step and status(run)["state"] == "running"


def attempted(attempt):
    """Identity of an attempt of a job, from the environment of its processes."""
    return {"SLURM_RESTART_COUNT": str(attempt)} if attempt else {}


def assert_same_weights(one, other):
    first, second = (load_file(run / "final/model.safetensors") for run in (one, other))
    assert set(first) == set(second)
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.fixture(scope="module")
def alone(ranks, small_file, shard_set, tmp_path_factory):
    """A run as one process without a cluster, made once for each set of options."""
    made = {}

    def begin(*words):
        if words not in made:
            made[words] = tmp_path_factory.mktemp("alone") / "run"
            ranks(1, "train.py", "--config", small_file, "--shards", shard_set, "--out", made[words], *words)
        return made[words]

    return begin


@pytest.fixture(scope="module")
def two_nodes(cluster, small_file, shard_set, tmp_path_factory):
    """An undisturbed run on two nodes, in float64; submitted without the user's environment, as some sites ask."""
    cluster.start()
    folder = tmp_path_factory.mktemp("two_nodes")
    words = (shard_set, folder / "run", "--config", small_file, "--precision", "float64", *EPOCHS)
    job = cluster.submit("train", folder / "logs", *words, sbatch=("--export=NONE",))
    cluster.end(job, folder / "logs")
    return folder / "run"


def test_two_nodes_train_what_one_process_trains(two_nodes, alone):
    one = alone("--precision", "float64", *EPOCHS)
    assert losses(two_nodes) == pytest.approx(losses(one), abs=1e-8)
    assert len(losses(one)) == 42
    text = (two_nodes / "train.log").read_text()
    assert "rank 0 of 2: " in text
    assert "rank 1 of 2: " in text
    assert "2 rank(s) on cpu" in text


def test_warned_twice_in_mid_epoch_it_ends_as_if_never_warned(up, small_file, shard_set, alone, tmp_path):
    logs = tmp_path / "logs"
    job = up.submit("seeds", logs, shard_set, tmp_path / "runs", "--config", small_file, *EPOCHS)
    warned, spared = (tmp_path / f"runs/seed-{seed}-fold-0" for seed in (1, 0))
    for attempt, step in enumerate((2, 9)):
        task = {"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": "1", **attempted(attempt)}
        with up.asleep_when(reached(warned, step), tmp_path, **task):
            held = len(losses(warned))
            up.call("scancel", "--signal=USR1", "--batch", f"{job}_1")
            up.wait((warned / "stop").exists, tmp_path)
        up.wait(lambda attempt=attempt: up.show(f"{job}_1").get("Restarts") == str(attempt + 1), tmp_path)
        assert step <= held <= len(losses(warned)) <= held + 4
    found = up.end(f"{job}_1", tmp_path)
    assert (found["Restarts"], found["JobName"]) == ("2", "hms-seed-1-fold-0")
    assert up.end(f"{job}_0", tmp_path)["Restarts"] == "0"
    assert_same_weights(warned, alone("--seed", "1", *EPOCHS))
    assert len(losses(spared)) == 42
    assert (tmp_path / f"runs/logs/seed-1-fold-0-{job}_1.log").read_text().count("back into the queue") == 2
    assert look(warned).job == f"{job}_1.2"


def test_a_warning_a_killed_rank_and_a_lost_node_cost_three_restarts_and_nothing_else(
    up, small_file, shard_set, two_nodes, tmp_path
):
    """After the warning the rank on the second node is killed, then n2 goes down with all that runs on it."""
    out = tmp_path / "run"
    words = ("--config", small_file, "--precision", "float64", "--checkpoint_every", 3, *EPOCHS)
    job = up.submit("train", tmp_path / "logs", shard_set, out, *words)
    with up.asleep_when(reached(out, 2), tmp_path, SLURM_JOB_ID=job, SLURM_NODEID="0"):
        up.call("scancel", "--signal=USR1", "--batch", job)
        up.wait((out / "stop").exists, tmp_path)
    up.wait(lambda: up.show(job)["Restarts"] == "1", tmp_path)
    assert status(out)["state"] == "stopped"
    with up.asleep_when(reached(out, 6), tmp_path, SLURM_JOB_ID=job, SLURM_NODEID="1", **attempted(1)) as rank:
        os.kill(rank, signal.SIGKILL)
    up.wait(lambda: up.show(job)["Restarts"] == "2", tmp_path)
    with up.asleep_when(reached(out, 9), tmp_path, SLURM_JOB_ID=job, SLURM_NODEID="0", **attempted(2)):
        on_n2 = up.processes(SLURM_JOB_ID=job, SLURM_NODEID="1")
        assert on_n2
        up.kill(up.daemons("n2"))
        up.kill(on_n2)
    up.wait(lambda: up.show(job)["JobState"] != "RUNNING", tmp_path)
    up.start()
    assert up.end(job, tmp_path)["Restarts"] == "3", up.account(tmp_path)
    assert losses(out) == losses(two_nodes)
    assert_same_weights(out, two_nodes)


def test_an_orphan_on_a_node_given_up_for_lost_writes_nothing(up, small_file, shard_set, alone, tmp_path):
    """Only a node's daemons die. The run there sleeps until the next attempt is at it elsewhere, then wakes up."""
    words = (shard_set, tmp_path / "runs", "--config", small_file, "--epochs", 12)
    job = up.submit("seeds", tmp_path / "logs", *words, seeds__seeds="[1]")
    run = tmp_path / "runs/seed-1-fold-0"
    with up.asleep_when(reached(run, 2), tmp_path, SLURM_ARRAY_JOB_ID=job) as orphan:
        node = up.show(f"{job}_0")["NodeList"]
        daemons, shell = up.daemons(node), up.parent(orphan)
        assert up.parent(shell) in daemons
    up.kill(daemons)  # while the run is awake: the kernel hangs up on sleepers that become orphans
    up.wait(lambda: up.parent(shell) not in daemons, tmp_path)
    with up.asleep(orphan):
        up.wait(lambda: (found := owner(run)) is not None and found.attempt == 1, tmp_path)
        assert up.show(f"{job}_0")["NodeList"] != node
    up.wait(lambda: not up.command_line(orphan), tmp_path)
    assert up.end(f"{job}_0", tmp_path)["Restarts"] == "1"
    log = (tmp_path / f"runs/logs/seed-1-fold-0-{job}_0.log").read_text()
    assert "another job took this run over; this one stops and writes nothing more" in log
    undisturbed = alone("--seed", "1", "--epochs", "12")
    assert_same_weights(run, undisturbed)
    assert losses(run) == losses(undisturbed)


def test_a_run_that_is_refused_is_not_tried_again(up, small_file, shard_set, tmp_path):
    job = up.submit(
        "train", tmp_path / "logs", shard_set, tmp_path / "run", "--config", small_file, "--selection.min_votes", 1000
    )
    began = time.monotonic()
    up.wait(lambda: up.show(job)["JobState"] == "FAILED", tmp_path)
    assert up.show(job)["Restarts"] == "0"
    assert time.monotonic() - began < 150
    assert "selection leaves 0 of" in (tmp_path / f"logs/train-{job}.log").read_text()
    assert not (tmp_path / "run").exists()
