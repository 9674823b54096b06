"""Jobs that are asked to stop as they end, and jobs that lose an idle worker."""

import os
import signal
import subprocess
import sys
import time
from multiprocessing import active_children
from multiprocessing.util import Finalize
from pathlib import Path
from threading import Thread

import pytest

from hms_dist.core.errors import JobError, Stopped
from hms_dist.jobs.worker_processes import check_stop, run_apart, run_jobs


def same(task):
    return task


def ask_when_leaving(task):
    """Send SIGTERM to the parent when this worker ends, all its tasks done."""
    Finalize(None, os.kill, args=(os.getppid(), signal.SIGTERM), exitpriority=0)
    return task


def ask_at_once(task):
    os.kill(os.getpid(), signal.SIGTERM)
    return task


def work(path):
    """A short task, or a long one that reports its process."""
    if path is not None:
        path.write_text(str(os.getpid()))
        time.sleep(600)


def fail_or_work(task):
    """Fail as soon as the other task has begun, or take 30 s in small steps."""
    fails, begun = task
    while fails:
        if begun.exists():
            raise JobError("nothing to do")
        time.sleep(0.05)
    begun.touch()
    for _ in range(300):
        check_stop()
        time.sleep(0.1)
    begun.with_name("done").touch()


def lose_the_idle_worker(path):
    for _ in run_jobs(work, [None, path], 2):
        while not (path.exists() and path.read_text()):
            time.sleep(0.05)
        (idle,) = [child for child in active_children() if str(child.pid) != path.read_text()]
        time.sleep(1)  # by then it waits for a task and holds the lock of the queue
        idle.kill()


def test_results_come_one_by_one_or_in_any_order():
    assert run_apart(same, 3) == 3
    assert list(run_jobs(same, range(4), 1)) == [0, 1, 2, 3]
    assert sorted(run_jobs(same, range(4), 2)) == [0, 1, 2, 3]


def test_asked_while_its_process_ends_it_stops():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="rerun the same command to continue"):
        run_apart(ask_when_leaving, 0)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("make", "workers"), [(ask_at_once, 1), (ask_when_leaving, 2)])
def test_asked_after_the_last_task_it_stops_with_its_results_given(make, workers):
    found = []
    with pytest.raises(Stopped):
        found.extend(run_jobs(make, [5], 1) if workers == 1 else run_jobs(make, [5, 5], workers))
    assert set(found) == {5}
    check_stop()  # the request does not affect later work of this process


def test_asked_while_an_error_waits_for_the_other_tasks_it_stops_them(tmp_path):
    begun = tmp_path / "begun"

    def ask():
        while not begun.exists():
            time.sleep(0.05)
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = Thread(target=ask, daemon=True)
    asking.start()
    with pytest.raises(JobError, match="nothing to do"):
        list(run_jobs(fail_or_work, [(True, begun), (False, begun)], 2))
    asking.join()
    assert not begun.with_name("done").exists()


def test_a_worker_killed_while_it_waits_for_work_ends_the_job(tmp_path, repository, ended):
    """In a separate process, because a failure would hang: the other worker waits for the lock of the killed one."""
    path = tmp_path / "busy"
    code = f"from test_worker_processes import *; lose_the_idle_worker(Path({str(path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert "JobError: a worker process was killed" in done.stderr
    assert ended(path.read_text())
