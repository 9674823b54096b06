"""The options of learning are the same on two ranks as on one: rates, averages, freezing, weighted rows."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from hms_dist.train.folder.record import read_metrics

pytestmark = pytest.mark.slow

WATCHED = """
import hashlib, sys
from hms_dist.config import load
from hms_dist.train import loop
from hms_dist.train.settings import TrainConfig

class Watched(loop.Trainer):
    def fit(self):
        super().fit()
        digest = hashlib.sha256()
        for name, tensor in sorted(self.learner.ema.tensors.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        (self.config.out / f"rank{self.world.rank}.sha256").write_text(digest.hexdigest())

loop.Trainer = Watched
loop.run(load(TrainConfig, sys.argv[1:]))
"""
OPTIONS = [
    "--precision=float64", "--global_batch=8", "--group_size=4", "--epochs=3",
    "--ema.decay=0.8", "--freeze.num_layers=12", "--freeze.until_epoch=1", "--loss.vote_power=1",
    "--optim.lr=1e-4", "--optim.layer_decay=0.8", "--optim.max_grad_norm=1", "--plateau.drop_factor=0.5",
    "--plateau.patience=0", "--plateau.threshold=9", "--schedule.name=one_cycle",
    "--schedule.momentum_range=[0.85,0.95]", "--plateau.stop_patience=2",
]  # fmt: skip


@pytest.fixture
def train(ranks, small_file, shard_set, tmp_path):
    def start(num_ranks):
        out, script = tmp_path / f"ranks{num_ranks}", tmp_path / "watched.py"
        script.write_text(WATCHED)
        ranks(num_ranks, script, "--config", small_file, "--shards", shard_set, "--out", out, *OPTIONS)
        return out

    return start


def test_one_rank_and_two_learn_the_same(train):
    one, two = train(1), train(2)
    for name, tolerance in (("loss", 1e-8), ("val_kl", 1e-8), ("lr", 0), ("ema_decay", 0)):
        found = [[line[name] for line in read_metrics(run) if name in line] for run in (one, two)]
        np.testing.assert_allclose(found[1], found[0], rtol=0, atol=tolerance, err_msg=name)
    rates = [line["lr"] for line in read_metrics(one) if "lr" in line]
    assert len(set(rates)) == len(rates)
    for name in ("model", "ema"):
        first, second = (load_file(run / f"final/{name}.safetensors") for run in (one, two))
        for key, tensor in first.items():
            np.testing.assert_allclose(second[key].numpy(), tensor.numpy(), rtol=0, atol=1e-7, err_msg=key)
    hashes = [(two / f"rank{rank}.sha256").read_text() for rank in (0, 1)]
    assert hashes[0] == hashes[1]
    assert json.loads((two / "status.json").read_text())["stopped_early"]
