"""Rows are the unit of training: the same run at any number of ranks and pass size, in float64 over 20 steps and more.

Groups are computed by one rank, several in a pass, or split over ranks; all random layers are on, and rows are mixed.
Each network is also trained with its weights moved by one unit in the last place. A network that amplifies this beyond
1e-9 could not distinguish rounding from a mistake, and is not used here.
"""

import shutil

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from hms_dist.shards.index import open_set
from hms_dist.train.folder.record import read_metrics

CANVAS = {"img_size": "canvas"}
NETS = {
    "test_efficientnet": (64, {}),
    "resnet10t": (64, {"channels": [16, 32, 48, 64]}),
    "tiny_vit_5m_224": (64, {"embed_dims": [16, 32, 48, 64], "num_heads": [1, 2, 3, 4], "depths": [1, 1, 2, 1]}),
    "levit_128s": (96, CANVAS),
    "test_vit": (64, CANVAS | {"attn_drop_rate": 0.2}),
}
"""Side of the canvas and arguments of timm's constructor: the smallest whose last map has 2 x 2 places."""
RATES = {"drop_rate": 0.3, "drop_path_rate": 0.2}
WORLDS = {
    8: [(1, 8), (1, 16), (2, None), (3, None), (4, None)],
    6: [(1, 6), (1, 12), (2, 6), (2, None), (3, None), (4, None)],
    24: [(2, None), (3, None), (4, None)],
}
"""Rows of a group: (ranks, rows of a pass). B = 24; 3 ranks with groups of 6 have one pass or two."""
MOVED = """
import runpy, sys, torch
from hms_dist.train.learn import learner

real = learner.build_network

def moved(*given):
    model, rows = real(*given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.nextafter(parameter, torch.tensor(torch.inf, dtype=torch.float64)))
    return model, rows

learner.build_network = moved
sys.argv = ["train.py", *sys.argv[1:]]
runpy.run_path("train.py", run_name="__main__")
"""
"""train.py with weights moved by one unit in the last place of a float64."""


@pytest.fixture
def losses(ranks, small_file, shard_set, tmp_path, augment_file):
    """Train with these options on a number of ranks and return the losses."""

    def run(name, num_ranks, model, *words, num_epochs=10, script="train.py"):
        out = tmp_path / name
        options = [f"--model={model}", "--fold=none", "--precision=float64", "--global_batch=24", "--optim.lr=1e-4"]
        options += [f"--augment={augment_file}", f"--epochs={num_epochs}", "--flip_probability=0.5"]
        ranks(
            num_ranks, script, "--config", small_file, "--shards", shard_set, "--out", out, *options,
            *[word for word in words if word is not None],
        )  # fmt: skip
        return np.array([line["loss"] for line in read_metrics(out) if "loss" in line])

    return run


@pytest.fixture
def canvas_of(small_file, tmp_path):
    """The canvas of the small configuration at another size, as a file."""

    def make(size):
        canvas = yaml.safe_load(small_file.read_text())["canvas"]
        for part in (canvas, *canvas["placements"]):
            part.update({key: part[key] * size // 64 for key in ("height", "width", "top", "left") if key in part})
        path = tmp_path / "canvas.yaml"
        path.write_text(yaml.safe_dump(canvas))
        return path

    return make


def words_of(group_size, pass_rows):
    return [f"--group_size={group_size}", None if pass_rows is None else f"--pass_rows={pass_rows}"]


@pytest.mark.slow
def test_groups_on_several_ranks_train_the_run_of_one(losses):
    """Four steps of a net with batch norm, dropout, drop-path, mixup and cutmix; the matrix is in test-long."""
    model = "{name: test_efficientnet, drop_rate: 0.3, drop_path_rate: 0.2}"
    for num_ranks, group_size in ((2, 8), (3, 6)):
        alone = losses(f"alone-{group_size}", 1, model, *words_of(group_size, group_size), num_epochs=2)
        assert len(set(alone.round(6))) == len(alone) == 4
        found = losses(f"{num_ranks}-{group_size}", num_ranks, model, *words_of(group_size, None), num_epochs=2)
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-9)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("group_size", WORLDS)
@pytest.mark.parametrize("name", NETS)
def test_any_world_and_pass_size_trains_the_same_run(losses, canvas_of, tmp_path, name, group_size):
    size, kwargs = NETS[name]
    model = {"name": name, **RATES, "kwargs": kwargs}
    script = tmp_path / "moved.py"
    script.write_text(MOVED)
    more = [f"--canvas={canvas_of(size)}", f"--group_size={group_size}"]
    alone = losses("alone", 1, model, *more)
    assert len(set(alone.round(6))) == len(alone) >= 20
    moved = np.abs(losses("moved", 1, model, *more, script=script) - alone).max()
    print(name, group_size, "weights moved:", moved)
    assert 0 < moved < 1e-9, "not a net for this test"
    for num_ranks, pass_rows in WORLDS[group_size]:
        tag = f"{num_ranks} ranks, passes of {pass_rows}"
        found = losses(tag.replace(" ", "-"), num_ranks, model, *more, *words_of(group_size, pass_rows)[1:])
        print(name, group_size, tag, np.abs(found - alone).max())
        np.testing.assert_allclose(found, alone, rtol=0, atol=1e-8, err_msg=tag)


TINY = {"name": "tiny_vit_5m_224", **RATES, "kwargs": NETS["tiny_vit_5m_224"][1]}
OPTIONS = {
    "recomputed": (TINY | {"grad_checkpointing": True}, []),
    "clipped, frozen, averaged and weighted": (
        {"name": "test_efficientnet", **RATES},
        ["--optim.max_grad_norm=0.1", "--freeze.num_layers=5", "--ema.decay=0.8", "--loss.vote_power=1"],
    ),
    "replaced": ({"name": "test_efficientnet", **RATES}, ["--on_error=replace"]),
}


@pytest.mark.long
@pytest.mark.parametrize(("num_ranks", "group_size"), [(2, 8), (3, 6), (4, 24)])
@pytest.mark.parametrize("name", OPTIONS)
def test_options_do_the_same_where_ranks_share_groups(losses, shard_set, tmp_path, name, num_ranks, group_size):
    model, words = OPTIONS[name]
    shards = damaged(shard_set, tmp_path / "damaged") if name == "replaced" else shard_set
    words = [*words, f"--group_size={group_size}", f"--shards={shards}"]
    alone = losses("alone", 1, model, *words, num_epochs=4)
    assert len(set(alone.round(6))) == len(alone) == 8
    np.testing.assert_allclose(losses("ranks", num_ranks, model, *words, num_epochs=4), alone, rtol=0, atol=1e-9)
    runs = [tmp_path / "alone", tmp_path / "ranks"]
    for kind in ("model", "ema") if "averaged" in name else ("model",):
        one, other = (load_file(run / f"final/{kind}.safetensors") for run in runs)
        assert all(torch.allclose(other[key], one[key], rtol=1e-6, atol=1e-8) for key in one)
    if name == "replaced":
        logs = [(run / "train.log").read_text() for run in runs]
        assert all("replaced" in log for log in logs)


def damaged(shards, folder):
    """A copy of a shard set in which the traces of three rows are damaged, both flips."""
    copy = shutil.copytree(shards, folder)
    for row in (3, 17, 30):
        fields = open_set(copy)[1].frame.iloc[row]
        path = copy / f"shard-{fields['shard']:06d}.tar"
        content = bytearray(path.read_bytes())
        for panel in ("traces", "traces_flipped"):
            content[fields[f"{panel}.offset"] + 200] ^= 1
        path.write_bytes(content)
    return copy
