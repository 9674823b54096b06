"""A rank whose launcher is gone, in a separate process: its message, and the files that it leaves."""

import json
import os
import signal
import subprocess
import sys

import pytest

RANK = """
import sys, time
from functools import partial
from pathlib import Path

from hms_dist.core.logging import start_log
from hms_dist.train.folder import stop
from hms_dist.train.folder.owner import owned
from hms_dist.train.folder.record import write_forced_end, write_status

folder, state = Path(sys.argv[1]), sys.argv[2]
stop.LOOK_EVERY_S, stop.SAVE_S = 0.05, 60 if state == "leaves" else 0.5
start_log(1)
request = stop.StopRequest(folder)
if state == "unsaved":
    stop.die_with_launcher()
else:
    stop.stop_with_launcher(request)
with owned(folder, is_main=True) as ownership:
    write_status(folder, state)
    request.on_forced_end = partial(write_forced_end, folder, ownership)
    print("begun", flush=True)
    while not request.asked():
        time.sleep(0.01)
    print("asked", flush=True)
    if state == "leaves":
        write_status(folder, "stopped", exit_code=1)
        sys.exit(3)
    time.sleep(600)
"""
LAUNCHER = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"


@pytest.fixture
def orphaned(repository, tmp_path):
    """Start a rank below a launcher, kill the launcher, and wait for the rank's last line; (standard output, log)."""
    script = tmp_path / "rank.py"
    script.write_text(RANK)

    def run(state):
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, str(script), str(tmp_path / "run"), state], text=True,
            env={**os.environ, "RANK": "0", "PYTHONPATH": str(repository)}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert launcher.stdout.readline() == "begun\n"
        launcher.kill()
        try:
            return launcher.communicate(timeout=240)  # its pipes close with the rank
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)

    return run


def status(tmp_path):
    return json.loads((tmp_path / "run/status.json").read_text())


def test_a_rank_that_does_not_stop_in_time_reports_so_and_ends(orphaned, tmp_path):
    out, log = orphaned("running")
    assert out == "asked\n"
    assert "rank 1 WARNING the launcher is gone; this rank stops at its next step, within 0.5 s" in log
    message = "the launcher is gone, and the rank did not stop within 0.5 s; rerun the same command to continue"
    assert f"rank 1 ERROR {message}" in log
    found = status(tmp_path)
    assert (found["state"], found["exit_code"], found["message"]) == ("interrupted", 1, message)


def test_a_recorded_end_of_a_run_is_kept(orphaned, tmp_path):
    _, log = orphaned("failed")
    assert "did not stop within" in log
    assert status(tmp_path)["state"] == "failed"


def test_a_rank_that_leaves_in_time_is_not_ended(orphaned, tmp_path):
    _, log = orphaned("leaves")
    assert "this rank stops at its next step" in log
    assert "did not stop" not in log
    assert status(tmp_path)["state"] == "stopped"


def test_a_process_with_nothing_to_save_ends_at_once(orphaned):
    out, log = orphaned("unsaved")
    assert out == ""
    assert "the launcher is gone; this rank ends" in log
