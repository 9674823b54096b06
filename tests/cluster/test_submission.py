"""slurm/pipeline.sh: its submissions for the unfinished steps of a chain, to a fake scheduler."""

import subprocess

import pytest

from hms_dist.cli import main
from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.cluster.settings import RenderJob, SeedsJob

CLUSTER = Sbatch(
    job="pipeline", account="eeg", partition="p", setup=(), options=("--qos=long",), max_restarts=4,
    environment={"NCCL_SOCKET_IFNAME": "ib 0"},
    render=RenderJob(cpus=3, partition="q"), seeds=SeedsJob(gpus=2, time="08:00:00", options=("--exclusive",)),
)  # fmt: skip
LEFT = "render render 0,2 -\nfinish finish - render\ntrain seeds 0,1 render,finish\n"


@pytest.fixture
def submit(tmp_path):
    """Run the script with an hms-dist that prints `left`; returns its output, and the words of each call of sbatch.

    `queued`: the output of squeue for all jobs; None: the scheduler is down. `refused`: the step that sbatch rejects.
    """

    def call(left, *words, queued="", refused="none"):
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        (tools / "hms-dist").write_text(f"#!/bin/sh\necho \"$*\" >> {tmp_path}/asked\nprintf '{left}'\n")
        (tools / "sbatch").write_text(
            f"#!/bin/sh\ncd {tmp_path}\nn=$(ls | grep -c words)\n"
            'for word; do echo "$word"; done > words$n\ncat > script$n\n'
            f'grep -qx {refused} words$n && exit 1\necho "$((n + 70));there"\n'
        )
        (tools / "squeue").write_text(
            f'#!/bin/sh\nprintf "{queued}"\n' if queued is not None else "#!/bin/sh\nexit 1\n"
        )
        for path in tools.iterdir():
            path.chmod(0o755)
        done = subprocess.run(
            ["bash", "-s", *words], input=f"PATH={tools}:$PATH\n{script(CLUSTER)}", cwd=tmp_path, text=True,
            capture_output=True, check=False,
        )  # fmt: skip
        calls = sorted(tmp_path.glob("words*"))
        return done, [path.read_text().splitlines() for path in calls]

    return call


def test_the_checked_in_script_is_what_is_printed(repository, capsys):
    assert main(["sbatch", "pipeline", "--config", str(repository / "configs/slurm/gpu_cluster.yaml")]) == 0
    assert capsys.readouterr().out == (repository / "slurm/pipeline.sh").read_text()


def test_every_step_waits_for_the_open_steps_before_it(submit, tmp_path):
    done, (render, finish, train) = submit(LEFT, "c.yaml", "my data", "out", "--lists={seed: [1]}")
    assert done.stdout.splitlines() == ["render: job 70", "finish: job 71", "train: job 72"]
    assert (tmp_path / "asked").read_text() == (
        "pipeline --config c.yaml --data my data --out out --lists={seed: [1]} --list\n"
    )
    assert {"--array=0,2", "--job-name=hms-render", "--partition=q", "--cpus-per-task=3", "--qos=long"} <= set(render)
    assert not [word for word in render if word.startswith(("--dependency", "--gpus"))]
    assert {"--dependency=afterok:70", "--partition=p", "--account=eeg"} <= set(finish)
    assert all("--kill-on-invalid-dep=yes" in words for words in (render, finish, train))
    assert not [word for word in finish if word.startswith("--array")]
    assert {"--dependency=afterok:70:71", "--gpus-per-node=2", "--time=08:00:00", "--exclusive"} <= set(train)
    chain = ["--config", "c.yaml", "--data", "my data", "--out", "out", "--lists={seed: [1]}"]
    assert train[train.index("/dev/stdin") + 1 :] == ["train", *chain]


def test_a_job_runs_its_task_of_its_step(submit, tmp_path):
    submit(LEFT, "c.yaml", "D", "O")
    (tmp_path / "asked").unlink()
    env = {"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "8", "SLURM_ARRAY_TASK_ID": "2", "SLURM_CPUS_PER_TASK": "3"}
    done = subprocess.run(
        ["bash", str(tmp_path / "script0"), "render", "--config", "c.yaml", "--out", "my out"], cwd=tmp_path,
        env={**env, "PATH": f"{tmp_path}/bin:/usr/bin:/bin", "TMPDIR": str(tmp_path)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert (tmp_path / "asked").read_text() == "pipeline --config c.yaml --out my out --step render --task 2\n"
    text = (tmp_path / "script0").read_text()
    assert "max_restarts=4\n" in text
    assert "export NCCL_SOCKET_IFNAME='ib 0'\n" in text


def test_a_chain_that_is_done_is_not_submitted(submit):
    done, calls = submit("", "c.yaml", "D", "O")
    assert (done.returncode, done.stdout, calls) == (0, "every step is done\n", [])


def test_a_chain_in_the_queue_is_not_submitted_again(submit):
    submit(LEFT, "c.yaml", "D", "O")
    done, calls = submit(LEFT, "c.yaml", "D", "O", queued="72\\n71\\n9\\n72\\n170\\n")
    assert done.returncode == 2
    assert done.stderr == "jobs of this chain are in the queue still; wait for them or scancel them: 71 72\n"
    assert len(calls) == 3
    done, calls = submit(LEFT, "c.yaml", "D", "O", queued="9\\n170\\n")
    assert (done.returncode, len(calls)) == (0, 6)


def test_a_scheduler_that_is_away_leaves_what_is_known_of_the_queue(submit, tmp_path):
    submit(LEFT, "c.yaml", "D", "O")
    done, calls = submit(LEFT, "c.yaml", "D", "O", queued=None)
    assert (done.returncode, len(calls)) == (1, 3)
    assert done.stderr == "squeue does not answer, so jobs of this chain may be in the queue still; try again later\n"
    assert (tmp_path / "O/steps/jobs").read_text().split() == ["70", "71", "72"]


def test_a_second_submission_of_a_chain_is_refused(submit, tmp_path):
    """Two users submit at once, or one submits twice."""
    lock = tmp_path / "O/steps/submitting"
    lock.parent.mkdir(parents=True)
    lock.touch()
    done, calls = submit(LEFT, "c.yaml", "D", "O")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr == (
        "O/steps/submitting: somebody is submitting this chain; wait for that, or remove this file if nobody is\n"
    )
    lock.unlink()
    assert submit(LEFT, "c.yaml", "D", "O")[0].returncode == 0
    assert not lock.exists()


def test_a_step_that_sbatch_refuses_ends_the_submission(submit):
    done, calls = submit(LEFT, "c.yaml", "D", "O", refused="finish")
    assert (done.returncode, len(calls)) == (1, 2)
    assert done.stderr == (
        "step finish was refused by sbatch; fix that, scancel what was submitted before it (70), and run this again\n"
    )


def test_too_few_words_are_refused(submit):
    done, calls = submit(LEFT, "c.yaml", "D")
    assert done.returncode == 2
    assert done.stderr == "usage: slurm/pipeline.sh CONFIG DATA OUT [options of hms-dist pipeline]\n"
    assert calls == []
