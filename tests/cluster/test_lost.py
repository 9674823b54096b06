"""train.sbatch after a run that ended badly: back into the queue only if it lost a rank or a node.

srun is a fake.
"""

import os
import subprocess

import pytest

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.cluster.settings import Resources

BEGINS = "rm -f $run/stop; echo {} > $run/environment.json"


@pytest.fixture
def train(tmp_path):
    """Run the script of a run on two nodes, whose ranks are some shell; whether it was requeued, and srun's words."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tmp_path / "my run").mkdir()
    answer = "JobId=77 JobState=RUNNING Reason=None Requeue=1 Restarts=0 BatchFlag=1"
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/scontrol.log\necho "{answer}"\n')

    def call(ranks):
        (tools / "srun").write_text(f'#!/bin/bash\nrun="{tmp_path}/my run"\necho "$*" > {tmp_path}/srun.log\n{ranks}\n')
        for path in tools.iterdir():
            path.chmod(0o755)
        text = script(Sbatch(job="train", setup=(), train=Resources(nodes=2, gpus=2, cpus=8)))
        done = subprocess.run(
            ["bash", "-s", "SHARDS", "my run"], input=text, cwd=tmp_path, capture_output=True, text=True, check=False,
            env={
                "PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "77",
                "SLURM_CPUS_PER_TASK": "8", "SLURM_NNODES": "2", "look_every_s": "0.1",
            },
        )  # fmt: skip
        log = tmp_path / "scontrol.log"
        return "requeue 77" in (log.read_text() if log.exists() else ""), done, (tmp_path / "srun.log").read_text()

    return call


@pytest.mark.parametrize(
    ("ranks", "requeued"),
    [
        (f"{BEGINS}; exit 1", True),
        (f"{BEGINS}; exit 0", False),
        (f"{BEGINS}; touch $run/.fault; exit 1", False),
        (f"{BEGINS}; touch $run/stop; exit 1", False),
        ("touch $run/stop; exit 1", False),
        ("exit 2", False),
        ("kill -KILL $$", True),
    ],
    ids=["broke off", "finished", "fault", "somebody touched RUN/stop", "stop before it began", "refused", "killed"],
)
def test_only_a_lost_rank_or_node_sends_a_run_round_the_queue(train, ranks, requeued):
    found, done, _ = train(ranks.replace("$run/", '"$run"/'))
    assert found == requeued, done.stderr
    assert (done.returncode == 0) == (requeued or "exit 0" in ranks)


def test_ranks_get_the_variables_of_the_job_whatever_the_job_was_submitted_with(train):
    """A job submitted with --export=NONE, which some sites ask for, would pass that on to srun."""
    _, _, words = train("exit 0")
    assert words.startswith("--export=ALL --cpus-per-task=8 ")
    assert words.endswith('-m hms_dist train "$@" launch --shards SHARDS --out my run --reader_threads 4\n')


def test_ranks_share_the_allocated_cores_and_meet_at_a_port_of_their_job(train, tmp_path):
    train('echo "$OMP_NUM_THREADS $ranks $port $NUMBA_CACHE_DIR" > "$run"/printed')
    threads, ranks, port, cache = (tmp_path / "my run/printed").read_text().split()
    assert (threads, ranks, cache) == ("4", "2", f"{tmp_path}/hms-77-0/numba")
    assert 20077 <= int(port) < 20177, "the next that is free"
