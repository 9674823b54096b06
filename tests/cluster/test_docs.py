"""docs/clusters.md: what it shows is taken as it stands, and it names every option that the job scripts have."""

import re
import shlex
import subprocess

import pytest
import yaml

from hms_dist.cluster.sbatch import Sbatch, script
from hms_dist.config import load
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
    table = page[page.index("## What each line is for") :]
    assert [option for option in options if option not in table] == []


def test_the_job_of_kubernetes_starts_training_as_train_py_takes_it(page, repository, monkeypatch):
    monkeypatch.chdir(repository)
    job = yaml.safe_load(blocks(page, "yaml")[1])
    (container,) = job["spec"]["template"]["spec"]["containers"]
    (line,) = container["args"]
    words = shlex.split(line)
    config = load(TrainConfig, words[words.index("train.py") + 1 :])
    assert (config.shards, str(config.out)) == ("/data/shards/hms", "/data/runs/b0")
    assert f"{job['metadata']['name']}-0.{job['spec']['template']['spec']['subdomain']}:29500" in words
