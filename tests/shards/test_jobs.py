"""Jobs that are asked to stop at their very end: the request is heard, whoever waits for what then."""

import os
import signal
from multiprocessing.util import Finalize

import pytest

from hms_dist.errors import Stopped
from hms_dist.shards.jobs import run_apart, run_jobs


def same(task):
    return task


def ask_when_leaving(task):
    """Send SIGTERM to the parent when this worker ends, all its tasks done."""
    Finalize(None, os.kill, args=(os.getppid(), signal.SIGTERM), exitpriority=0)
    return task


def ask_at_once(task):
    os.kill(os.getpid(), signal.SIGTERM)
    return task


def test_results_come_one_by_one_or_in_any_order():
    assert run_apart(same, 3) == 3
    assert list(run_jobs(same, range(4), 1)) == [0, 1, 2, 3]
    assert sorted(run_jobs(same, range(4), 2)) == [0, 1, 2, 3]


def test_asked_while_its_process_ends_it_stops():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="rerun the same command to go on"):
        run_apart(ask_when_leaving, 0)
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(("make", "workers"), [(ask_at_once, 1), (ask_when_leaving, 2)])
def test_asked_after_the_last_task_it_stops_with_its_results_given(make, workers):
    found = []
    with pytest.raises(Stopped):
        found.extend(run_jobs(make, [5], 1) if workers == 1 else run_jobs(make, [5, 5], workers))
    assert set(found) == {5}
