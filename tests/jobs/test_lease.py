"""Leases: one owner at a time, expired ones taken over, also with real processes competing."""

import dataclasses
import errno
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from hms_dist.jobs import lease
from hms_dist.jobs.lease import LeaseHeld, Owner, acquire, myself, read_owner


@pytest.fixture
def path(tmp_path):
    return tmp_path / "shard-000000.claim"


def write(path, owner, age_s=0.0):
    path.write_text(json.dumps(dataclasses.asdict(owner)))
    then = time.time() - age_s
    os.utime(path, (then, then))


def elsewhere():
    return Owner("far-away", "another boot/1", 7, "123_4", "nonce")


def wait(condition):
    """Wait until a condition holds, however busy the machine is."""
    until = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def beats(path):
    """Whether a lease was touched within a second."""
    return lease.age_s(path) < 1


def has_heart(path):
    """Whether a thread keeps a lease alive."""
    return any(thread.name == f"lease-{path.name}" for thread in threading.enumerate())


def test_a_lease_lives_as_long_as_its_block(path):
    with acquire(path) as held:
        assert read_owner(path) == held.owner
        assert held.is_mine()
        with pytest.raises(LeaseHeld, match=f"process {os.getpid()} on .* holds it"), acquire(path):
            pass
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_an_error_releases_it(path):
    with pytest.raises(ZeroDivisionError), acquire(path):
        _ = 1 / 0
    assert not path.exists()


def test_a_living_owner_on_another_node_is_named(path):
    write(path, elsewhere(), age_s=20)
    with (
        pytest.raises(LeaseHeld, match=r"process 7 on far-away, job 123_4 holds it \(last heartbeat 2\d s ago\)"),
        acquire(path),
    ):
        pass
    assert read_owner(path) == elsewhere()


def test_a_stopped_heartbeat_is_taken_over(path):
    write(path, elsewhere(), age_s=lease.DEAD_AFTER_S + 1)
    with acquire(path) as held:
        assert read_owner(path) == held.owner


def test_a_process_killed_here_is_replaced_at_once(path):
    done = subprocess.Popen([sys.executable, "-c", "pass"])
    done.wait()
    write(path, dataclasses.replace(myself(), pid=done.pid))
    with acquire(path) as held:
        assert held.is_mine()


def test_a_killed_process_not_yet_collected_counts_as_dead(path):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    write(path, dataclasses.replace(myself(), pid=child.pid))
    with pytest.raises(LeaseHeld), acquire(path):
        pass
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with acquire(path):
        pass
    child.wait()


def test_the_same_process_number_in_another_container_is_not_this_one(path):
    write(path, dataclasses.replace(elsewhere(), pid=2**22 - 1))
    with pytest.raises(LeaseHeld), acquire(path):
        pass


def test_a_lease_cut_short_waits_for_its_heartbeat(path):
    path.write_text('{"host": "a')
    with pytest.raises(LeaseHeld, match="unknown host"), acquire(path):
        pass
    os.utime(path, (0, 0))
    with acquire(path):
        pass


def test_the_heart_beats(path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with acquire(path):
        os.utime(path, (0, 0))
        wait(lambda: beats(path))


@pytest.mark.parametrize("where", ["utime", "read_owner"])
def test_a_file_server_that_stutters_does_not_stop_the_heart(path, monkeypatch, where):
    module = os if where == "utime" else lease
    real, failed = getattr(module, where), []

    def stutter(*words):
        if threading.current_thread().name == f"lease-{path.name}" and len(failed) < 2:
            failed.append(words)
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return real(*words)

    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(module, where, stutter)
    with acquire(path):
        wait(lambda: len(failed) == 2)
        os.utime(path, (0, 0))
        wait(lambda: beats(path))


def test_a_lease_that_is_caught_by_mistake_and_put_back_beats_on(path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with acquire(path) as held:
        path.rename(path.with_suffix(".caught"))
        time.sleep(0.3)
        write(path, held.owner, age_s=1000)
        wait(lambda: beats(path))
        path.with_suffix(".caught").unlink()


def test_the_heart_stops_for_a_lease_that_is_another_s(path, monkeypatch):
    monkeypatch.setattr(lease, "HEARTBEAT_S", 0.05)
    with acquire(path):
        write(path, elsewhere(), age_s=1000)
        wait(lambda: not has_heart(path))
        assert lease.age_s(path) > 900


def test_an_owner_that_lost_its_lease_leaves_the_new_one_alone(path):
    with acquire(path) as held:
        write(path, elsewhere())
        assert not held.is_mine()
    assert read_owner(path) == elsewhere()


def earlier(attempt):
    """An attempt of the same batch job on a node that no longer responds."""
    return Owner("far-away", "another boot/1", 7, "123_4", "nonce", attempt)


def test_a_restarted_job_takes_over_from_its_earlier_attempt_though_its_heart_beats(path, monkeypatch):
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "123")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    write(path, earlier(1))
    lease.await_expiry(path)
    with acquire(path) as held:
        assert held.is_mine()
        assert held.owner.attempt == 2
    write(path, earlier(2))
    with pytest.raises(LeaseHeld), acquire(path):
        pass


def test_another_job_does_not_take_over_whatever_its_attempt(path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "99")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    write(path, earlier(0))
    with pytest.raises(LeaseHeld), acquire(path):
        pass


def test_an_earlier_attempt_knows_that_it_is_superseded(path, monkeypatch):
    assert not lease.is_superseded(path)
    write(path, earlier(3))
    assert not lease.is_superseded(path), "outside of that job"
    monkeypatch.setenv("SLURM_JOB_ID", "123_4")
    for attempt in range(5):
        monkeypatch.setenv("SLURM_RESTART_COUNT", str(attempt))
        assert lease.is_superseded(path) == (attempt < 3)


def test_held_is_what_somebody_alive_holds(path):
    assert not lease.is_held(path)
    with acquire(path):
        assert lease.is_held(path)
    write(path, elsewhere(), age_s=lease.DEAD_AFTER_S + 1)
    assert not lease.is_held(path)


def contend(path, barrier, wins):
    barrier.wait()
    try:
        with acquire(path) as held:
            barrier.wait()  # until all have tried
            if held.is_mine():  # a lease can be caught by a slow contender, and lost to a third: it publishes nothing
                wins.put(os.getpid())
    except LeaseHeld:
        barrier.wait()


@pytest.mark.parametrize("dead", [False, True])
def test_of_many_contenders_one_wins(path, dead):
    if dead:
        write(path, elsewhere(), age_s=lease.DEAD_AFTER_S + 1)
    context = multiprocessing.get_context("fork")
    barrier, wins = context.Barrier(8, timeout=240), context.Queue()
    processes = [context.Process(target=contend, args=(path, barrier, wins)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert not wins.empty()
    wins.get()
    time.sleep(0.1)
    assert wins.empty()


@pytest.mark.parametrize("has_links", [True, False])
def test_a_lease_is_exclusive_and_leaves_no_file(path, monkeypatch, has_links):
    def refuse(*names):
        raise OSError(errno.EPERM, "no hard links")

    if not has_links:
        monkeypatch.setattr(os, "link", refuse)
    with acquire(path) as held:
        assert held.is_mine()
        assert [each.name for each in path.parent.iterdir()] == [path.name]
        with pytest.raises(LeaseHeld), acquire(path):
            pass
    assert not list(path.parent.iterdir())


def test_a_lease_from_the_future_expires_from_now_on(path, monkeypatch):
    """The file server's clock was set back by an hour since its owner, who is dead, touched it."""
    monkeypatch.setattr(lease, "DEAD_AFTER_S", 0.5)
    write(path, elsewhere(), age_s=-3600)
    with pytest.raises(LeaseHeld, match="far-away"), acquire(path):
        pass
    assert abs(lease.age_s(path)) < 60
    lease.await_expiry(path)
    with acquire(path) as held:
        assert held.is_mine()


@pytest.mark.parametrize("given", ["abc", "-1", "", "1.5"])
def test_a_restart_count_that_is_not_a_number_is_none(given, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", given)
    assert myself().attempt == 0
