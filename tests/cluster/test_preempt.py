"""The shell that stops and requeues, with a fake scheduler that records the calls."""

import os
import signal
import subprocess
import time

import pytest

from hms_dist.cluster.preempt import IDENTITY, PREEMPTION

ENDS_WHEN_ASKED = "while [[ ! -e asked ]]; do sleep 0.05; done; exit 1"
LIMIT_S = 240
"""Longer than any of these takes on a busy machine."""


@pytest.fixture
def job(tmp_path):
    """Start a script of ours around a payload; `scontrol` writes its words down and knows `restarts`.

    `away`: times that the scheduler does not answer at first. `takes_back`: whether it requeues.
    """
    tools = tmp_path / "bin"
    tools.mkdir()

    def start(payload, *, restarts=0, limit=3, state="RUNNING", away=0, takes_back=True, **variables):
        fake = tools / "scontrol"
        answer = f"JobId=77 JobState={state} Reason=None Requeue=1 Restarts={restarts} BatchFlag=1"
        fake.write_text(
            f'#!/bin/sh\necho "$*" >> {tmp_path}/scontrol.log\n'
            f'[ $(wc -l < {tmp_path}/scontrol.log) -gt {away} ] || exit 1\necho "{answer}"\n'
            f"[ $1 != requeue ] || {str(takes_back).lower()}\n"
        )
        fake.chmod(0o755)
        text = f"""set -euo pipefail
max_restarts={limit}
{IDENTITY}{PREEMPTION}
ask() {{ touch asked; }}
touch begun
run bash -c '{payload}'
if ((code)) && [[ $asked == yes ]]; then requeue; fi
exit "$code"
"""
        env = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "TMPDIR": str(tmp_path)}
        env |= {"look_every_s": "0.1", **variables}
        return subprocess.Popen(
            ["bash", "-c", text], cwd=tmp_path, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def calls(folder):
    path = folder / "scontrol.log"
    return path.read_text().splitlines() if path.exists() else []


def send(process, number, folder):
    until = time.monotonic() + LIMIT_S
    while not (folder / "begun").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)


@pytest.mark.parametrize("code", [0, 3])
def test_what_ends_by_itself_ends_as_it_did(job, tmp_path, code):
    process = job(f"exit {code}")
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == code
    assert calls(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_warning_asks_and_requeues_by_the_job(job, tmp_path, number):
    process = job(ENDS_WHEN_ASKED)
    send(process, number, tmp_path)
    text, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, text
    assert calls(tmp_path) == ["--oneliner show job 77", "requeue 77"]


def test_a_scheduler_that_is_away_for_a_moment_is_asked_again(job, tmp_path):
    process = job(ENDS_WHEN_ASKED, away=1)
    send(process, signal.SIGUSR1, tmp_path)
    text, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, text
    assert calls(tmp_path) == ["--oneliner show job 77", "--oneliner show job 77", "requeue 77"]


def test_a_site_that_requeues_no_job_is_reported(job, tmp_path):
    (tmp_path / "bin/sleep").write_text("#!/bin/sh\nexec /bin/sleep 0.05\n")
    (tmp_path / "bin/sleep").chmod(0o755)
    process = job(ENDS_WHEN_ASKED, takes_back=False)
    send(process, signal.SIGUSR1, tmp_path)
    text, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert text.endswith("77: the scheduler did not requeue it; submit it again to continue from here\n")
    assert calls(tmp_path)[1:] == ["requeue 77"] * 5


def test_a_task_of_an_array_requeues_itself_alone(job, tmp_path):
    process = job(ENDS_WHEN_ASKED, SLURM_ARRAY_JOB_ID="70", SLURM_ARRAY_TASK_ID="5")
    send(process, signal.SIGUSR1, tmp_path)
    process.communicate(timeout=LIMIT_S)
    assert calls(tmp_path)[-1] == "requeue 70_5"


def test_who_finishes_in_spite_of_the_warning_is_done(job, tmp_path):
    process = job("while [[ ! -e asked ]]; do sleep 0.05; done")
    send(process, signal.SIGUSR1, tmp_path)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
    assert calls(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
@pytest.mark.parametrize("state", ["CANCELLED", "PENDING"])
def test_a_job_that_was_cancelled_or_requeued_already_is_left_alone(job, tmp_path, number, state):
    process = job(ENDS_WHEN_ASKED, state=state)
    send(process, number, tmp_path)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert calls(tmp_path) == ["--oneliner show job 77"]


def test_restarts_are_capped(job, tmp_path):
    process = job(ENDS_WHEN_ASKED, restarts=3, SLURM_RESTART_COUNT="3")
    send(process, signal.SIGUSR1, tmp_path)
    text, _ = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "77: restarted 3 times already; given up" in text
    assert calls(tmp_path) == []
    late = job("touch never", restarts=4, SLURM_RESTART_COUNT="4")
    assert late.wait(timeout=LIMIT_S) == 1
    assert not (tmp_path / "never").exists()


def test_a_script_that_outlived_its_attempt_leaves_the_next_one_alone(job, tmp_path):
    process = job(ENDS_WHEN_ASKED, restarts=1)
    send(process, signal.SIGUSR1, tmp_path)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert calls(tmp_path) == ["--oneliner show job 77"]


def test_caches_are_the_attempts_own_and_go_with_it(job, tmp_path):
    process = job("mkdir -p $NUMBA_CACHE_DIR; echo $NUMBA_CACHE_DIR $TORCHINDUCTOR_CACHE_DIR", SLURM_RESTART_COUNT="2")
    text, _ = process.communicate(timeout=LIMIT_S)
    assert text.split() == [f"{tmp_path}/hms-77-2/numba", f"{tmp_path}/hms-77-2/inductor"]
    assert not (tmp_path / "hms-77-2").exists()
