"""Rows are the unit of training: the same run at any number of ranks and pass size, in float64 over 20 steps and more.

Groups are computed by one rank, several in a pass, or split over ranks; all random layers are on, and rows are mixed.
Each network is also trained with its weights moved by one unit in the last place. A network that amplifies this beyond
1e-9 could not distinguish rounding from a mistake, and is not used here.
"""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hms_dist.model.build import ModelConfig, build
from hms_dist.train.folder.record import read_metrics

NETS = {
    "test_efficientnet": {"drop_rate": 0.3, "drop_path_rate": 0.2},
    "resnet10t": {"drop_rate": 0.3, "drop_path_rate": 0.2},
    "tiny_vit_5m_224": {"drop_path_rate": 0.2},
    "levit_128s": {"drop_path_rate": 0.2, "kwargs": {"img_size": "canvas"}},
    "test_vit": {"drop_rate": 0.2, "drop_path_rate": 0.2, "kwargs": {"img_size": "canvas", "attn_drop_rate": 0.2}},
}
WORLDS = [(1, 8, 8), (1, 24, None), (2, 8, None), (2, 6, 6), (3, 8, None), (3, 6, None), (3, 24, None), (4, 8, None)]
"""Ranks, rows of a group, rows of a pass. B = 24: 3 ranks with groups of 6 have one pass or two."""


@pytest.fixture
def losses(ranks, small_file, shard_set, tmp_path, augment_file):
    """Train with these options on a number of ranks and return the losses."""

    def run(name, num_ranks, model, *words, num_epochs=10):
        out = tmp_path / name
        options = [f"--model={model}", "--fold=none", "--precision=float64", "--global_batch=24", "--optim.lr=1e-4"]
        options += [f"--augment={augment_file}", f"--epochs={num_epochs}", "--flip_probability=0.5"]
        ranks(
            num_ranks, "train.py", "--config", small_file, "--shards", shard_set, "--out", out, *options,
            *[word for word in words if word is not None],
        )  # fmt: skip
        return np.array([line["loss"] for line in read_metrics(out) if "loss" in line])

    return run


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
@pytest.mark.parametrize("name", NETS)
def test_any_world_and_pass_size_trains_the_same_run(losses, tmp_path, name):
    options = {"name": name, **NETS[name]}
    start, moved = tmp_path / "start.safetensors", tmp_path / "moved.safetensors"
    state = build(ModelConfig(**options), seed=0, size=(64, 64)).state_dict()
    save_file(state, start)
    save_file({key: up_one_unit(tensor) for key, tensor in load_file(start).items()}, moved)
    for group_size in (8, 6, 24):
        alone = losses(f"alone-{group_size}", 1, {**options, "weights": str(start)}, *words_of(group_size, None))
        beside = losses(f"beside-{group_size}", 1, {**options, "weights": str(moved)}, *words_of(group_size, None))
        print(name, group_size, "moved by one unit:", np.abs(beside - alone).max())
        for num_ranks, size, pass_rows in WORLDS:
            if size == group_size:
                tag = f"{num_ranks}-{size}-{pass_rows}"
                found = losses(tag, num_ranks, {**options, "weights": str(start)}, *words_of(size, pass_rows))
                print(name, tag, np.abs(found - alone).max())
                np.testing.assert_allclose(found, alone, rtol=0, atol=1e-8, err_msg=tag)


def up_one_unit(tensor):
    """Move weights by one unit in the last place of a float64."""
    return tensor if not tensor.is_floating_point() else torch.nextafter(tensor, torch.tensor(torch.inf))
