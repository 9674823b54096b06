"""docs/clusters.md: its examples are valid, and it explains every option of the job scripts."""

import re
import shlex
import subprocess

import pytest
import yaml

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.cluster.settings import ClusterConfig
from hms_dist.config.load import load
from hms_dist.config.recipes import names
from hms_dist.train.settings import TrainConfig

JOBS = ("render", "finish", "train", "seeds", "pipeline")


@pytest.fixture
def page(repository):
    return (repository / "docs/clusters.md").read_text()


def blocks(page, kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("job", JOBS)
def test_the_cluster_that_it_writes_down_gives_scripts_whose_options_it_explains(job, page, tmp_path):
    (tmp_path / "mine.yaml").write_text(blocks(page, "yaml")[0])
    text = script(load(Sbatch, ["--config", str(tmp_path / "mine.yaml"), "--job", job]))
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    assert "module load cuda/12.4\nsource .venv/bin/activate\nexport NCCL_SOCKET_IFNAME=ib0\n" in text
    options = re.findall(r"^#SBATCH (--[\w-]+)", text, re.MULTILINE)
    assert bool(options) == (job != "pipeline")
    table = page[page.index("## Explanation of each line") :]
    assert [option for option in options if option not in table] == []


def test_the_job_of_kubernetes_starts_training_with_options_that_it_takes(page):
    job = yaml.safe_load(blocks(page, "yaml")[1])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (line,) = container["args"]
    words = shlex.split(line)
    config = load(TrainConfig, words[words.index("train") + 1 :])
    assert (config.shards, str(config.out)) == ("/data/shards/hms", "/data/runs/b0")
    assert f"{job['metadata']['name']}-0.{job['spec']['template']['spec']['subdomain']}:29500" in words


TRAINING = re.compile(r"^.*(?:hms_dist train|hms-dist train|train\.sbatch|seeds\.sbatch) .*--config .*$", re.M)
"""A printed command that trains, its continued lines joined."""
RECIPE = re.compile(rf"--config ({'|'.join(names('train'))})\b.*")


def printed(repository):
    """Commands of README and docs that start training: (page, line)."""
    for path in [repository / "README.md", *sorted((repository / "docs").rglob("*.md"))]:
        code = "\n".join(re.findall(r"^```\w*\n(.*?)^```", path.read_text(), re.MULTILINE | re.DOTALL))
        code = re.sub(r"(?m)^ *- >-\n((?: {14}.*\n)+)", lambda block: " ".join(block[1].split()) + "\n", code)
        for line in TRAINING.findall(re.sub(r"\\\n *", "", code)):
            if RECIPE.search(line):
                yield path.name, line


def number(line, option):
    found = re.search(rf"{option} (\d+)", line)
    return int(found[1]) if found else 1


def ranks_of(line, clusters, repository):
    """Ranks that a printed command starts, by its launcher's options or by the cluster that the script is for."""
    if "train.sbatch" in line:
        return {cluster.train.nodes * max(cluster.train.gpus, 1) for cluster in clusters}
    if "seeds.sbatch" in line:
        return {max(cluster.seeds.gpus, 1) for cluster in clusters}
    if recipe := re.search(r"--config_file \$\(hms-dist recipes (\S+)\)", line):
        return {yaml.safe_load((repository / f"configs/{recipe[1]}.yaml").read_text())["num_processes"]}
    if file := re.search(r"--config_file (\S+)", line):
        return {yaml.safe_load((repository / file[1]).read_text())["num_processes"]}
    if "torchrun" in line:
        return {number(line, "--nnodes") * number(line, "--nproc_per_node")}
    return {number(line, "--num_processes")}


def test_the_ranks_of_every_printed_training_can_share_its_groups(page, repository, tmp_path, monkeypatch):
    """The scripts of README and docs are those of the cluster that the page writes down, or of the local Slurm; the
    checked-in ones are those of gpu_cluster.yaml."""
    monkeypatch.chdir(repository)
    (tmp_path / "mine.yaml").write_text(blocks(page, "yaml")[0])
    local = repository / "configs/slurm/local.yaml"
    files = [tmp_path / "mine.yaml", repository / "configs/slurm/gpu_cluster.yaml"]
    commands = list(printed(repository))
    assert len(commands) >= 7
    for where, line in commands:
        found = RECIPE.search(line)
        is_local = found[1] == "demo"
        clusters = [load(ClusterConfig, ["--config", str(file)]) for file in ([local] if is_local else files)]
        words = found[0].partition(" #")[0].rstrip('"& ').rstrip('"')
        given = shlex.split(words)
        places = [] if "--shards" in given else ["--shards", "s", "--out", "o"]
        config = load(TrainConfig, [*given, *places])
        for ranks in ranks_of(line, clusters, repository):
            assert config.global_batch % ranks == 0, f"{where}: {ranks} ranks: {line}"
