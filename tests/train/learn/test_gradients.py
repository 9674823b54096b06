"""The gradient of one step in float32, over all weights: the same for passes of any size and on any number of ranks."""

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from hms_dist.train.learn.step import Stepper
from hms_dist.train.loop import run

MIXES = """
steps:
  - {class_path: MixUp, init_args: {probability: 0.7}}
  - {class_path: CutMix, init_args: {probability: 0.5}}
"""
TINY = {"embed_dims": [16, 32, 48, 64], "num_heads": [1, 2, 3, 4], "depths": [1, 1, 2, 1]}
NETS = {
    "test_efficientnet": {},
    "resnet10t": {"channels": [16, 32, 48, 64]},
    "tiny_vit_5m_224": TINY,
    "test_vit": {"img_size": "canvas", "attn_drop_rate": 0.2},
}
SAVED = """
import os, sys
from safetensors.torch import save_file
from hms_dist.config.load import load
from hms_dist.train import loop
from hms_dist.train.learn.step import Stepper
from hms_dist.train.settings import TrainConfig

real, path = Stepper._update, f"{sys.argv[1]}/{os.environ['RANK']}.safetensors"

def update(self):
    if not os.path.exists(path):
        weights = self.world.accelerator.unwrap_model(self.model).named_parameters()
        save_file({name: weight.grad for name, weight in weights}, path)
    real(self)

Stepper._update = update
loop.run(load(TrainConfig, sys.argv[2:]))
"""
"""Training, which saves the gradient of each rank's first step."""


@pytest.fixture
def options(tmp_path):
    """Options of a run of two steps of 24 rows: dropout and drop-path, mixed rows, random turns."""

    def make(name, **more):
        mixes = tmp_path / "mixes.yaml"
        mixes.write_text(MIXES)
        model = {"name": name, "drop_rate": 0.3, "drop_path_rate": 0.2, "kwargs": NETS[name]}
        return {"model": model, "augment": mixes, "fold": "none", "epochs": 1, "global_batch": 24, **more}

    return make


@pytest.fixture
def gradients(small, options, monkeypatch):
    """The gradients of the two steps of a run in this process: name of the weight -> tensor on the host."""

    def of(out, name, **more):
        found = []
        real = Stepper._update

        def update(self):
            found.append({key: weight.grad.detach().cpu().clone() for key, weight in self.model.named_parameters()})
            real(self)

        with monkeypatch.context() as patch:
            patch.setattr(Stepper, "_update", update)
            run(small(out, **options(name, **more)))
        AcceleratorState._reset_state(reset_partial_state=True)
        assert len(found) == 2
        return found

    return of


def difference(found, expected):
    """Norm of the difference over all weights, as a share of the gradient's norm."""
    assert set(found) == set(expected)
    one, other = (torch.cat([part[name].double().flatten() for name in expected]) for part in (found, expected))
    assert one.isfinite().all()
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", ["test_efficientnet", pytest.param("tiny_vit_5m_224", marks=pytest.mark.slow)])
def test_passes_of_any_size_have_one_gradient(gradients, name):
    first, second = gradients("whole", name, group_size=4)
    step_to_step = difference(second, first)
    assert step_to_step > 0.1
    for pass_rows in (4, 16):
        found, _ = gradients(f"passes-{pass_rows}", name, group_size=4, pass_rows=pass_rows)
        share = difference(found, first)  # by itself, or a failure would print every weight
        assert share < 1e-5


def gradient_of_ranks(ranks, num_ranks, small_file, shard_set, folder, options):
    """The first gradient of a run on so many ranks, which all have the same."""
    folder.mkdir()
    script = folder / "saved.py"
    script.write_text(SAVED)
    words = [f"--{name}={value}" for name, value in options.items()]
    out = folder / "run"
    ranks(num_ranks, script, folder, "--config", small_file, "--shards", shard_set, "--out", out, *words)
    found = [load_file(folder / f"{rank}.safetensors") for rank in range(num_ranks)]
    for other in found[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in found[0].items())
    return found[0]


WORLDS = [(2, 8), (3, 6), (4, 24)]
"""Ranks, rows of a group: some groups or all are split."""


@pytest.mark.parametrize(
    ("name", "num_ranks", "group_size"),
    [
        pytest.param(name, *world, marks=pytest.mark.slow if (name, world) == slow else pytest.mark.long)
        for slow in [("test_efficientnet", (3, 6))]
        for name in NETS
        for world in WORLDS
    ],
)
def test_ranks_have_the_gradient_of_one(
    gradients, options, ranks, small_file, shard_set, tmp_path, name, num_ranks, group_size
):
    given = options(name, group_size=group_size)
    found = gradient_of_ranks(ranks, num_ranks, small_file, shard_set, tmp_path / "ranks", given)
    share = difference(found, gradients("alone", name, group_size=group_size)[0])
    assert share < 1e-5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("compile_mode", [None, "auto"])
@pytest.mark.parametrize("name", NETS)
def test_passes_of_any_size_have_one_gradient_on_a_gpu(gradients, name, compile_mode):
    """Channels last, with and without CUDA graphs."""
    more = {"group_size": 4, "compile_mode": compile_mode, "precision": "float32"}
    first, second = gradients("whole", name, **more)
    step_to_step = difference(second, first)
    assert step_to_step > 0.1
    for pass_rows in (4, 16):
        share = difference(gradients(f"passes-{pass_rows}", name, **more, pass_rows=pass_rows)[0], first)
        assert share < 1e-4
