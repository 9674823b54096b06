"""The local Slurm itself: it comes up twice, goes down after a crash, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/local_slurm.sh"


@pytest.fixture
def own(cluster, repository, tmp_path):
    """A Slurm that is not up yet, beside that of the other tests."""
    slurm = type(cluster)(tmp_path / "own", repository)
    yield slurm
    slurm.stop()


@pytest.mark.slurm
@pytest.mark.timeout(600)
def test_it_starts_twice_and_stops_after_a_crash_with_jobs_and_all(cluster, own, ended):
    assert own.start().returncode == 0
    before = _daemons(own)
    own.call("scontrol", "update", "NodeName=n1", "State=DRAIN", "Reason=mishap")
    assert own.start().returncode == 0
    assert _daemons(own) == before
    assert not own.call("sinfo", "--noheader", "--Node", "--states=drain").strip()
    own.call("sbatch", "--parsable", "--output=/dev/null", "--wrap", "srun sleep 600")
    until = time.monotonic() + 120
    while not own.processes(SLURM_JOB_NAME="wrap") and time.monotonic() < until:
        time.sleep(0.1)
    assert own.processes(SLURM_JOB_NAME="wrap")
    os.kill(before["slurmctld"], signal.SIGKILL)
    os.kill(before["slurmd-n1"], signal.SIGKILL)
    own.stop()
    assert own.processes() == []
    assert all(map(ended, before.values()))
    assert not own.folder.exists()
    assert len(cluster.call("sinfo", "--noheader", "--Node").splitlines()) == 2


def _daemons(cluster):
    return {path.stem: int(path.read_text()) for path in cluster.folder.glob("*.pid")}


def test_it_names_what_to_install(tmp_path):
    (tmp_path / "realpath").symlink_to(shutil.which("realpath"))
    done = subprocess.run(
        [shutil.which("bash"), SCRIPT, "start", tmp_path / "folder"], env={"PATH": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "local_slurm.sh: slurmctld is missing; apt-get install slurm-wlm munge\n"
    assert not (tmp_path / "folder").exists()


def test_a_wrong_word_gets_the_usage():
    done = subprocess.run([SCRIPT, "restart"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "local_slurm.sh: usage: scripts/local_slurm.sh start|stop [FOLDER]\n",
    )


def test_a_folder_that_slurm_cannot_take_is_refused(tmp_path):
    done = subprocess.run([SCRIPT, "start", tmp_path / "my slurm"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"local_slurm.sh: '{tmp_path}/my slurm': Slurm takes no folder with spaces; choose another\n"
    assert not list(tmp_path.iterdir())
