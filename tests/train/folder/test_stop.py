"""Being stopped, killed, doubled and orphaned: real processes, real signals; the weights are those of no stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hms_dist.core.errors import UserError
from hms_dist.jobs.lease import acquire
from hms_dist.train.folder.owner import LEASE_NAME, Superseded, owned
from hms_dist.train.folder.record import read_metrics, reported
from hms_dist.train.folder.stop import LOOK_EVERY_S, STOP_NAME, StopRequest
from hms_dist.train.loop import run

ALONE = [sys.executable]
TWO = [f"{os.path.dirname(sys.executable)}/torchrun", "--standalone", "--nproc_per_node", "2"]


@pytest.fixture
def words_of(small_file, shard_set, tmp_path):
    """The command line of a run in a folder; its 42 steps take some seconds, too long to end while a test looks on."""

    def make(out, *more):
        given = ["--config", small_file, "--shards", shard_set, "--out", tmp_path / out, "--epochs", 6, *more]
        return ["train.py", *map(str, given)]

    return make


@pytest.fixture
def start(repository, words_of):
    """Start a training run; whatever is left of it is killed at the end."""
    started = []

    def begin(launcher, out, *words):
        process = subprocess.Popen(
            [*launcher, *words_of(out, *words)], cwd=repository,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def status(folder):
    return json.loads((folder / "status.json").read_text())


def steps(folder):
    return [line["step"] for line in read_metrics(folder) if "loss" in line]


def wait_for_step(folder, step, process, limit_s=240):
    began = time.monotonic()
    while not steps(folder) or steps(folder)[-1] < step:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() - began < limit_s
        time.sleep(0.02)


@contextmanager
def held_at(folder, step, process, limit_s=240):
    """Stop a rank within some ms of a step, however fast its steps are, and with it the others that wait for it.

    It is held for the time between two polls: the next step notices.
    """
    wait_for_step(folder, (steps(folder) or [0])[-1] + 1, process, limit_s)
    pid = (ranks_of(process) or [process.pid])[0]
    began = time.monotonic()
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            if steps(folder)[-1] >= step:
                yield pid
                time.sleep(LOOK_EVERY_S)
                return
        finally:
            os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - began < limit_s
        time.sleep(0.01)


def has_heard(pid):
    """Whether SIGTERM has come to a process that is held."""
    pending = re.search(r"ShdPnd:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(pending[1], 16) >> (signal.SIGTERM - 1) & 1)


def ranks_of(process):
    """Processes below the launcher."""
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in listed.stdout.split()]


def wait_for_end(pids, ended, limit_s=240):
    until = time.monotonic() + limit_s
    while not all(map(ended, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert all(map(ended, pids))


def imports_torch(pid):
    """Whether a process has begun to import torch, some seconds before its run begins."""
    try:
        return "libtorch" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


def assert_same_weights(one, other):
    first, second = (load_file(folder / "final/model.safetensors") for folder in (one, other))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "number"), [(ALONE, 1), (TWO, 2)], ids=["alone", "torchrun"])
def test_asked_twice_in_mid_epoch_it_ends_as_if_never_asked(start, ranks, words_of, tmp_path, launcher, number):
    ranks(number, *words_of("whole"))
    stopped = tmp_path / "stopped"
    for step, ask in ((2, "file"), (9, "signal")):
        process = start(launcher, "stopped")
        with held_at(stopped, step, process) as rank:
            if ask == "file":
                (stopped / STOP_NAME).touch()
            else:
                for _ in range(3):
                    process.send_signal(signal.SIGTERM)
                    time.sleep(0.02)
                while not has_heard(rank) and process.poll() is None:
                    time.sleep(0.02)
        text, _ = process.communicate(timeout=240)
        assert process.returncode != 0
        found = status(stopped)
        assert (found["state"], found["exit_code"]) == ("stopped", 1), text
        assert "rerun the same command to continue" in found["message"]
        assert step <= steps(stopped)[-1] < len(steps(tmp_path / "whole")) == 42
    ranks(number, *words_of("stopped"))
    assert_same_weights(tmp_path / "whole", stopped)
    assert steps(stopped) == steps(tmp_path / "whole")


@pytest.mark.slow
def test_one_rank_asked_in_an_evaluation_stops_both_and_they_continue_there(ranks, words_of, tmp_path):
    """Five groups on two ranks: rank 1 is asked in the round in which it has nothing to do."""
    faults = [Path(__file__).with_name("rank_faults.py"), "is_asked_to_stop_in_the_first_evaluation"]
    words = ("--epochs", "2", "--global_batch", "8", "--group_size", "4")
    words += ("--ema.decay", "0.9", "--ema.every", "epoch", "--ema.evaluate_raw", "true")
    ranks(2, *words_of("whole", *words))
    text = ranks(2, *faults, *words_of("stopped", *words), code=1)
    assert status(tmp_path / "stopped")["state"] == "stopped", text
    assert not any("val_kl" in line for line in read_metrics(tmp_path / "stopped"))
    ranks(2, *words_of("stopped", *words))
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    one, other = (
        [line["val_kl_raw"] for line in read_metrics(tmp_path / out) if "val_kl" in line]
        for out in ("whole", "stopped")
    )
    assert one == other


@pytest.mark.slow
def test_a_rank_that_dies_takes_the_job_down(start, tmp_path, ended):
    process = start(TWO, "run", "--epochs", "50")
    wait_for_step(tmp_path / "run", 2, process)
    ranks = ranks_of(process)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    text, _ = process.communicate(timeout=240)
    assert process.returncode != 0
    assert "Signal 9" in text or "SIGKILL" in text
    assert all(map(ended, ranks))


@pytest.mark.slow
def test_ranks_end_with_a_killed_launcher_and_the_run_continues(start, ranks, words_of, tmp_path, ended):
    process = start(TWO, "run")
    with held_at(tmp_path / "run", 2, process):
        pids = ranks_of(process)
        process.kill()
        process.wait()
    wait_for_end(pids, ended)
    assert status(tmp_path / "run")["state"] == "stopped", "nothing is lost with the launcher"
    ranks(2, *words_of("run"))
    assert status(tmp_path / "run")["state"] == "finished"


@pytest.mark.slow
def test_ranks_end_with_a_launcher_that_was_killed_while_they_started(start, tmp_path, ended):
    process = start(TWO, "run")
    while len(ranks := ranks_of(process)) < 2 or not all(map(imports_torch, ranks)):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)
    process.kill()
    process.wait()
    wait_for_end(ranks, ended)
    assert not (tmp_path / "run/final").exists(), "they trained on to the end"


def test_a_living_owner_is_named_and_nothing_of_his_touched(small, monkeypatch):
    monkeypatch.setattr("hms_dist.jobs.lease.HEARTBEAT_S", 0.2)
    config = small()
    config.out.mkdir()
    with (
        acquire(config.out / LEASE_NAME),
        pytest.raises(UserError, match=rf"run: process {os.getpid()} .*; wait for that run to end, or choose another"),
    ):
        run(config)
    assert list(config.out.iterdir()) == []


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path):
    with owned(tmp_path / "run", is_main=True) as ownership:
        ownership.check()
        path = tmp_path / "run" / LEASE_NAME
        values = json.loads(path.read_text())
        path.write_text(json.dumps({**values, "host": "elsewhere", "nonce": "another"}))
        with pytest.raises(Superseded, match="another job took this run over; this one stops and writes nothing more"):
            ownership.check()
    assert path.exists(), "the lease of the new owner must stay"


def test_what_a_superseded_rank_dies_of_is_not_written_into_the_run(tmp_path, monkeypatch):
    """A peer of an orphan is gone: its own attempt has failed, the run has not."""
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    folder = tmp_path / "run"
    with owned(folder, is_main=True) as main, owned(folder, is_main=False) as other:
        with pytest.raises(ZeroDivisionError), other.guard():
            _ = 1 / 0
        values = json.loads((folder / LEASE_NAME).read_text())
        (folder / LEASE_NAME).write_text(json.dumps({**values, "attempt": 1, "nonce": "another"}))
        for ownership in (main, other):
            with pytest.raises(Superseded), reported(folder, 0), ownership.guard():
                raise ConnectionError("peer lost")
    assert [path.name for path in folder.iterdir()] == [LEASE_NAME]


def test_other_ranks_need_no_lease(tmp_path):
    with owned(tmp_path / "run", is_main=False) as ownership:
        ownership.check()
    assert not (tmp_path / "run").exists()


def test_a_signal_raises_a_flag_and_no_more(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest(tmp_path) as stop:
        assert not stop.asked()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked()
        assert stop.asked()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_file_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("hms_dist.train.folder.stop.LOOK_EVERY_S", 0.0)
    stop = StopRequest(tmp_path)
    assert not stop.asked()
    (tmp_path / STOP_NAME).touch()
    assert stop.asked()


def test_a_file_left_from_before_does_not_stop_a_new_start(small):
    config = small(epochs=1)
    config.out.mkdir()
    (config.out / STOP_NAME).touch()
    (config.out / ".status.json.0123.tmp").touch()  # of a write that a kill cut short
    run(config)
    assert status(config.out)["state"] == "finished"
    assert not (config.out / STOP_NAME).exists()
    assert not list(config.out.glob(".*"))
