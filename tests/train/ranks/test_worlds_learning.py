"""The options of training give the same result under every launcher, on one rank and two, killed or not."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hms_dist.train.folder.record import read_metrics

LAUNCHERS = {
    "torchrun 1": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"],
    "torchrun 2": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    "accelerate 1": [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=1"],
    "accelerate 2": [
        sys.executable, "-m", "accelerate.commands.launch", "--main_process_port=0",
        "--config_file=configs/accelerate/cpu2.yaml",
    ],
}  # fmt: skip
OPTIONS = [
    "--model.name=test_efficientnet", "--precision=float64", "--global_batch=8", "--group_size=4", "--epochs=3",
    "--ema.decay=0.8", "--freeze.num_layers=12", "--loss.vote_power=1",
    "--optim.lr=1e-4", "--optim.head_lr_factor=2", "--optim.max_grad_norm=1", "--plateau.drop_factor=0.5",
    "--plateau.patience=0", "--plateau.threshold=9", "--schedule.name=one_cycle",
    "--schedule.momentum_range=[0.85,0.95]", "--plateau.stop_patience=2",
]  # fmt: skip
WATCHED = """
import hashlib, os, signal, sys, threading
from hms_dist.config.load import load
from hms_dist.train import loop
from hms_dist.train.learn.step import Stepper
from hms_dist.train.settings import TrainConfig

at_step, delay_s = os.environ.get("KILL", "-1 0").split()

take = Stepper.take

def killed(self, batches, step, **options):
    if step.overall == int(at_step):
        threading.Timer(float(delay_s), os.kill, (os.getpid(), signal.SIGKILL)).start()
    return take(self, batches, step, **options)

class Watched(loop.Trainer):
    def fit(self):
        super().fit()
        digest = hashlib.sha256()
        for name, tensor in sorted(self.learner.ema.tensors.items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        (self.config.out / f"rank{self.world.rank}.sha256").write_text(digest.hexdigest())

loop.Trainer, Stepper.take = Watched, killed
loop.run(load(TrainConfig, sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def words_of(small_file, shard_set, tmp_path_factory):
    """Return the command line of a run with a given name, and its folder."""
    folder = tmp_path_factory.mktemp("worlds")
    script = folder / "watched.py"
    script.write_text(WATCHED)

    def make(name, *more):
        out = folder / name.replace(" ", "-")
        return [str(script), f"--config={small_file}", f"--shards={shard_set}", f"--out={out}", *OPTIONS, *more], out

    return make


@pytest.fixture(scope="module")
def begin(repository, words_of):
    """Start a run under a launcher: (process, run folder)."""

    def start(launcher, name, *more, **variables):
        words, out = words_of(name, *more)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository), "ACCELERATE_USE_CPU": "1"}
        environment |= variables
        process = subprocess.Popen(
            [*LAUNCHERS[launcher], *words], cwd=repository, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return process, out

    return start


@pytest.fixture(scope="module")
def finished(begin, ranks, words_of):
    """Return the folder of a finished run under a launcher, or without one; each is run once."""
    runs = {}

    def run(launcher):
        if launcher == "alone" and launcher not in runs:
            words, runs[launcher] = words_of(launcher)
            ranks(1, *words)
        if launcher not in runs:
            process, runs[launcher] = begin(launcher, launcher)
            log = process.communicate(timeout=550)[0]
            assert process.returncode == 0, log
        return runs[launcher]

    return run


def weights(run, name):
    return load_file(run / f"final/{name}.safetensors")


def digest_of(tensors):
    content = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        content.update(name.encode() + tensor.numpy().tobytes())
    return content.hexdigest()


def killed_in_mid_run(begin, name, step, delay_s):
    """A run on two ranks, each of them killed `delay_s` after it began `step`, counted from 0.

    The ranks kill themselves: torchrun starts each in a session of its own, and one that outlives torchrun saves.
    """
    process, out = begin("torchrun 2", name, "--checkpoint_every=1", KILL=f"{step} {delay_s}")
    printed = process.communicate(timeout=300)[0]
    assert process.returncode == 1, printed
    assert "SIGKILL" in printed
    assert not (out / "final").exists(), "it was done before it was killed; kill it earlier"
    return out


def resumed(ranks, words_of, name):
    words, out = words_of(name, "--checkpoint_every=1")
    ranks(2, *words)
    assert "resumed at" in (out / "train.log").read_text()
    return out


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_trains_as_plain_python_does(finished, launcher):
    alone, other = finished("alone"), finished(launcher)
    for name, tolerance in (("loss", 1e-8), ("val_kl", 1e-8), ("lr", 0), ("ema_decay", 0)):
        found = [[line[name] for line in read_metrics(run) if name in line] for run in (alone, other)]
        np.testing.assert_allclose(found[1], found[0], rtol=0, atol=tolerance, err_msg=name)
    rates = [line["lr"] for line in read_metrics(alone) if "lr" in line]
    assert len(set(rates)) == len(rates)
    for name in ("model", "ema"):
        first, second = weights(alone, name), weights(other, name)
        for key, tensor in first.items():
            np.testing.assert_allclose(second[key].numpy(), tensor.numpy(), rtol=0, atol=1e-7, err_msg=key)
    raw, averaged = weights(other, "model"), weights(other, "ema")
    counter = "bn2.num_batches_tracked"  # behind the frozen layers
    assert averaged[counter] == raw[counter] > 0, "the average did not move"
    assert not torch.equal(averaged["classifier.weight"], raw["classifier.weight"])
    hashes = {path.read_text() for path in other.glob("rank*.sha256")}
    assert hashes == {digest_of(averaged)}, "the ranks hold different averages"
    assert json.loads((other / "status.json").read_text())["stopped_early"]


@pytest.mark.slow
def test_two_ranks_killed_in_mid_run_resume_to_the_same_average(finished, begin, ranks, words_of):
    killed_in_mid_run(begin, "killed", 3, 0.0)
    again, whole = resumed(ranks, words_of, "killed"), finished("torchrun 2")
    for name in ("model", "ema"):
        assert digest_of(weights(again, name)) == digest_of(weights(whole, name))


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_40_kills_of_two_ranks_in_mid_run_change_nothing(finished, begin, ranks, words_of, rng):
    whole = finished("torchrun 2")
    num_steps = max(line["step"] for line in read_metrics(whole))
    for number in range(40):
        name = f"killed-{number}"
        killed_in_mid_run(begin, name, int(rng.integers(1, num_steps - 3)), float(rng.uniform(0, 0.1)))
        again = resumed(ranks, words_of, name)
        for part in ("model", "ema"):
            assert digest_of(weights(again, part)) == digest_of(weights(whole, part)), (number, part)
