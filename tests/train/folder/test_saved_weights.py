"""Weights that a run leaves, best and final: whole, once for shared tensors, and refused where they do not fit."""

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.train.folder.checkpoint import load_weights, read_meta, save_weights
from hms_dist.train.optimise.ema import Ema, EmaConfig


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


class Shared(nn.Module):
    """Two names for one weight, and a buffer that is a view of another."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight
        base = torch.rand(4)
        self.register_buffer("whole", base)
        self.register_buffer("part", base[1:3])
        self.register_buffer("turned", torch.rand(2, 3).T)


@pytest.mark.usefixtures("torch_rng")
def test_shared_memory_survives(tmp_path: Path) -> None:
    model = Shared()
    save_weights(tmp_path / "best", model, {})
    other = Shared()
    load_weights(other, tmp_path / "best")
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert other.second.weight is other.first.weight


@pytest.mark.usefixtures("torch_rng")
def test_weights_replace_each_other_whole(tmp_path: Path) -> None:
    best = tmp_path / "best"
    model = build(ModelConfig(name="tiny_vit_5m_224"), seed=1).to(memory_format=torch.channels_last)
    save_weights(best, nn.Linear(2, 2), {"val_kl": 0.5})
    save_weights(best, model, {"val_kl": 0.25, "epoch": 3})
    assert names(tmp_path) == ["best"]
    assert names(best) == ["hashes.json", "meta.json", "model.safetensors"]
    other, image = build(ModelConfig(name="tiny_vit_5m_224"), seed=2).eval(), torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        other(image)  # fills the cache of attention biases
        assert load_weights(other, best) == {"val_kl": 0.25, "epoch": 3}
        torch.testing.assert_close(other(image), model.eval()(image), rtol=1e-5, atol=1e-6)
    best.rename(tmp_path / ".best.old")  # killed between the two renames
    assert load_weights(copy.deepcopy(other), best)["epoch"] == 3
    assert names(tmp_path) == [".best.old"]
    save_weights(best, model, {"epoch": 4})
    assert names(tmp_path) == ["best"]


def test_weights_that_cannot_be_loaded(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    best = tmp_path / "best"
    with pytest.raises(
        UserError, match=r"best: no weights here, expected a folder with model\.safetensors; check the run"
    ):
        load_weights(model, best)
    save_weights(best, model, {})
    with pytest.raises(UserError, match=r"do not fit Linear: 2 of another shape \(bias \(2,\) for \(5,\), weight"):
        load_weights(nn.Linear(3, 5), best)
    flip_a_bit(best / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.safetensors: its SHA-256 is not .* damaged: restore them from a copy"):
        load_weights(model, best)


@pytest.mark.usefixtures("torch_rng")
def test_weights_to_use_are_the_average_unless_raw_ones_are_wanted(tmp_path: Path) -> None:
    model, other = (nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)) for _ in range(2))
    ema = Ema(EmaConfig(decay=0.5), model)
    model(torch.rand(5, 1, 8, 8))
    with torch.no_grad():
        model[0].weight += 1
    save_weights(tmp_path / "best", model, {}, ema)
    save_weights(tmp_path / "plain", model, {})
    expected = {None: ema.tensors, "ema": ema.tensors, "raw": dict(model.state_dict())}
    for weights, tensors in expected.items():
        load_weights(other, tmp_path / "best", weights)
        torch.testing.assert_close(dict(other.state_dict()), tensors, rtol=0, atol=0)
    load_weights(other, tmp_path / "plain")
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    with pytest.raises(UserError, match="plain: holds no averaged weights, the run kept no average; take the raw ones"):
        load_weights(other, tmp_path / "plain", "ema")


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors", "meta.json"])
def test_weights_without_a_hash_are_refused(tmp_path: Path, name: str) -> None:
    model, best = nn.Linear(2, 2), tmp_path / "best"
    save_weights(best, model, {"val_kl": 0.5}, Ema(EmaConfig(decay=0.9), model))
    hashes = json.loads((best / "hashes.json").read_text())
    hashes.pop(name)
    for content, message in (
        (hashes, f"hashes.json: no hash of {name}"),
        ({"meta.json": 3}, "hashes.json: no hash of"),
        ([], "hashes.json: not a table of hashes"),
    ):
        (best / "hashes.json").write_text(json.dumps(content))
        with pytest.raises(UserError, match=message):
            load_weights(model, best, "raw" if name == "model.safetensors" else None)
    with pytest.raises(UserError, match=r"hashes.json: no hash of meta.json; restore it"):
        read_meta(best)
    (best / "hashes.json").write_text("{")
    with pytest.raises(UserError, match=r"hashes.json: not JSON \(.*\); restore it"):
        read_meta(best)
