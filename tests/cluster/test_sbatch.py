"""The job scripts: checked-in and printed text agree, and follow the configuration."""

import os
import re
import subprocess

import pytest

from hms_dist.cli import main
from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.cluster.settings import ClusterConfig, RenderJob, Resources, SeedsJob
from hms_dist.config.load import load
from hms_dist.core.errors import UserError

JOBS = ("render", "finish", "train", "seeds")
CLUSTERS = ("gpu_cluster", "container_cluster", "local")


def options(text):
    """The #SBATCH lines of a script."""
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))


def variables(text):
    return dict(re.findall(r"^(\w+)=([^ \n]*|\(.*\))(?: #.*)?$", text.split("shift")[0], re.MULTILINE))


@pytest.mark.parametrize("job", JOBS)
def test_the_checked_in_scripts_are_what_is_printed(job, repository, capsys):
    assert main(["sbatch", job, "--config", str(repository / "configs/slurm/gpu_cluster.yaml")]) == 0
    assert capsys.readouterr().out == (repository / f"slurm/{job}.sbatch").read_text()


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("job", JOBS)
def test_every_cluster_gives_shell_that_parses_and_can_be_stopped(job, cluster, repository):
    text = script(load(Sbatch, ["--config", str(repository / f"configs/slurm/{cluster}.yaml"), "--job", job]))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "--requeue" in text.replace("#SBATCH --requeue", "--requeue")
    found = options(text)
    assert found["signal"].startswith("B:USR1@")
    assert found["open-mode"] == "append"
    assert {path.stem for path in (repository / "configs/slurm").iterdir()} == set(CLUSTERS)


def test_the_options_follow_the_configuration():
    config = Sbatch(
        job="train", account="eeg", partition="a", options=("--qos=long",), warn_s=77, max_restarts=4,
        container=("apptainer", "exec", "my image.sif"), environment={"NCCL_SOCKET_IFNAME": "ib 0"},
        setup=("module load x",),
        train=Resources(
            nodes=3, gpus=4, cpus=40, memory_gb=99, time="08:00:00", partition="b", options=("--exclusive",)
        ),
    )  # fmt: skip
    text = script(config)
    expected = {
        "account": "eeg", "partition": "b", "nodes": "3", "ntasks-per-node": "1", "gpus-per-node": "4",
        "cpus-per-task": "40", "mem": "99G", "time": "08:00:00", "signal": "B:USR1@77", "qos": "long", "exclusive": "",
    }  # fmt: skip
    assert expected.items() <= options(text).items()
    assert "array" not in options(text)
    assert "module load x\nexport NCCL_SOCKET_IFNAME='ib 0'\n" in text
    assert {"max_restarts": "4", "ranks": "4", "container": "(apptainer exec 'my image.sif')"}.items() <= variables(
        text
    ).items()


@pytest.mark.parametrize("gpus", [0, 2])
def test_nothing_is_asked_that_was_not_configured(gpus):
    found = options(script(Sbatch(job="train", train=Resources(gpus=gpus))))
    assert {"account", "partition"}.isdisjoint(found)
    assert ("gpus-per-node" in found) == bool(gpus)


def test_the_array_of_runs_has_a_task_for_each_seed_with_each_fold(tmp_path):
    seeds, folds = (7, 0, 4294967295), (0, "none")
    text = script(Sbatch(job="seeds", seeds=SeedsJob(seeds=seeds, folds=folds)))
    assert options(text)["array"] == "0-5"
    arithmetic = text[text.index("\nseed=") : text.index("\njob=")]
    lists = "\n".join(line for line in text.splitlines() if re.match(r"(seeds|folds)=", line))
    found = set()
    for task in range(6):
        shell = f"runs=R SLURM_ARRAY_TASK_ID={task}\n{lists}\n{arithmetic}\necho $seed $fold $run"
        found.add(subprocess.run(["bash", "-euc", shell], capture_output=True, text=True, check=True).stdout.strip())
    assert found == {f"{seed} {fold} R/seed-{seed}-fold-{fold}" for seed in seeds for fold in folds}


@pytest.mark.parametrize(("job", "words"), [("render", ["DATA"]), ("train", ["SHARDS"]), ("finish", [])])
def test_too_few_words_are_refused_before_anything_runs(job, words, tmp_path):
    done = subprocess.run(
        ["bash", "-s", *words], input=script(Sbatch(job=job, setup=("exit 9",))), cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"usage: sbatch slurm/{job}.sbatch ")


def test_a_script_that_a_shell_was_given_explains_how_to_submit_it(tmp_path):
    done = subprocess.run(
        ["bash", "-s", "SHARDS"], input=script(Sbatch(job="finish", setup=("exit 9",))), cwd=tmp_path,
        capture_output=True, text=True, check=False, env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    expected = "this is a job of Slurm, not a script to call; submit it: sbatch slurm/finish.sbatch ...\n"
    assert (done.returncode, done.stderr) == (2, expected)


def test_a_task_beyond_the_runs_is_refused(tmp_path):
    text = script(Sbatch(job="seeds", setup=(), seeds=SeedsJob(seeds=(3, 4), folds=(0, 1))))
    done = subprocess.run(
        ["bash", "-s", "SHARDS", "RUNS"], input=text, cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "--array: 2 seeds and 2 folds are tasks 0 to 3, found 4\n")


def test_a_variable_from_the_command_line(capsys):
    assert main(["sbatch", "train", "--environment.FOO", "bar"]) == 0
    assert "export FOO=bar\n" in capsys.readouterr().out


def test_an_option_of_a_job_is_named_with_its_job(capsys):
    for job in ("render", "finish", "train", "seeds"):
        assert main(["sbatch", "seeds", f"--{job}.time", "tomorrow"]) == 2
        assert f"sbatch: {job}.time: expected minutes, HH:MM:SS or D-HH:MM:SS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Resources(cpus=0), "cpus: expected at least 1, found 0"),
        (lambda: Resources(gpus=-1), "gpus: expected at least 0, found -1"),
        (lambda: Resources(gpus=2, ranks=4), "ranks: expected one per GPU, found 4 ranks and 2 GPUs; leave ranks out"),
        (lambda: Resources(ranks=0), "ranks: expected at least 1 or null, found 0"),
        (lambda: Resources(gpus=8, cpus=4), "cpus: 8 ranks on a node need as many, found 4"),
        (lambda: Resources(time="a day"), "time: expected minutes, HH:MM:SS or D-HH:MM:SS, found 'a day'"),
        (
            lambda: Resources(options=("qos=1",)),
            "options: expected options of sbatch such as --qos=long, found 'qos=1'",
        ),
        (lambda: RenderJob(slices=0), "slices: expected at least 1, found 0"),
        (lambda: RenderJob(nodes=2), "nodes: each task of an array runs on one node, found 2; use the train job"),
        (lambda: SeedsJob(seeds=(1, 1)), "seeds: expected different values, at least one, found [1, 1]"),
        (lambda: SeedsJob(folds=()), "folds: expected different values, at least one, found []"),
        (lambda: SeedsJob(folds=(-1,)), "folds: expected numbers from 0, or none, found [-1]"),
        (lambda: SeedsJob(seeds=(2**32,)), "seeds: expected 0 to 4294967295, found 4294967296"),
        (lambda: ClusterConfig(warn_s=0), "warn_s: expected 1 s or more, less than 65536 s and than any job's time"),
        (lambda: ClusterConfig(warn_s=70000), "less than 65536 s and than any job's time (86400 s), found 70000"),
        (lambda: ClusterConfig(train=Resources(time="5")), "than any job's time (300 s), found 300"),
        (lambda: ClusterConfig(max_restarts=-1), "max_restarts: expected at least 0, found -1"),
        (lambda: ClusterConfig(environment={"A B": "1"}), "environment: 'A B' cannot name a variable"),
    ],
)
def test_impossible_options_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    ("time", "expected"),
    [("90", 5400), ("90:30", 5430), ("2:00:05", 7205), ("1-2", 93600), ("1-02:30", 95400), ("1-02:30:07", 95407)],
)
def test_times_are_read_as_slurm_reads_them(time, expected):
    assert Resources(time=time).time_s == expected


def test_a_list_of_seeds_from_the_command_line():
    config = load(Sbatch, ["--job", "seeds", "--seeds.seeds", "[3, 5]", "--seeds.folds", "[none]"])
    assert (config.seeds.seeds, config.seeds.folds) == ((3, 5), ("none",))
    with pytest.raises(UserError, match="seeds: expected different values"):
        load(Sbatch, ["--job", "seeds", "--seeds.seeds", "[3, 3]"])
