"""Two ranks on two GPUs over NCCL, compiled or with split groups, start with the same losses as one rank on one GPU."""

import os
import subprocess
import sys

import pytest
import torch

from hms_dist.train.folder.record import read_metrics

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")]
PLAIN = ("--epochs=1", "--log_every=1", "--model.drop_rate=0", "--model.drop_path_rate=0", "--global_batch=8")


@pytest.fixture
def losses(repository, small_file, shard_set, tmp_path):
    def train(ranks, *words):
        out = tmp_path / f"on-{ranks}"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
        given = [f"--config={small_file}", f"--shards={shard_set}", f"--out={out}", *PLAIN, *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "2"}
        done = subprocess.run(
            [*launch, "train.py", *given], cwd=repository, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return [line["loss"] for line in read_metrics(out) if "loss" in line]

    return train


def test_a_group_on_two_ranks_is_the_group_of_one(losses):
    one = losses(1, "--group_size=8", "--precision=float32")
    two = losses(2, "--group_size=8", "--precision=float32")
    assert two[0] == pytest.approx(one[0], rel=1e-4)
    assert len(one) == len(two)


@pytest.mark.parametrize("model", ["resnet18", "tiny_vit_5m_224"])
def test_a_compiled_model_on_two_ranks_is_the_one_rank_s(losses, model):
    words = ("--group_size=4", "--precision=bf16", f"--model.name={model}")
    one = losses(1, *words)
    two = losses(2, *words, "--compile_mode=default")
    assert two[0] == pytest.approx(one[0], rel=0.02)
    assert len(one) == len(two)
