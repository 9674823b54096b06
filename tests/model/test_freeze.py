"""Frozen layers: their choice, and that they do not change."""

import pytest
import torch
from torch import nn

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.freeze import FreezeConfig, freeze

NAMES = ("tf_efficientnet_b0", "resnet18", "tiny_vit_5m_224")


def frozen_names(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if not parameter.requires_grad]


def stepped(model: nn.Module) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(2):
        model(torch.randn(4, 1, 64, 64)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("torch_rng")
def test_frozen_layers_are_bit_equal_after_steps_and_the_rest_is_not(name: str) -> None:
    model = build(ModelConfig(name=name), seed=0)
    freeze(model, FreezeConfig(num_layers=15))
    names = frozen_names(model)
    assert names
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    stepped(model)
    layers = {key.rpartition(".")[0] for key in names}
    for key, tensor in model.state_dict().items():
        if key.rpartition(".")[0] in layers:
            assert torch.equal(tensor, before[key]), key
    assert any(not torch.equal(model.state_dict()[key], before[key]) for key in before)
    running = [key for key in before if key.endswith("running_mean")]
    moved = [key for key in running if not torch.equal(model.state_dict()[key], before[key])]
    assert not moved or {key.rpartition(".")[0] for key in moved} == {k.rpartition(".")[0] for k in running} - layers


@pytest.mark.usefixtures("torch_rng")
def test_layers_are_counted_from_the_input_in_the_order_of_the_forward_pass() -> None:
    model = build(ModelConfig(name="tf_efficientnet_b0"), seed=0)
    seen: list[str] = []
    for name, module in model.named_modules():
        if next(module.parameters(recurse=False), None) is not None:
            module.register_forward_hook(lambda *_, name=name: seen.append(name))
    model(torch.randn(2, 1, 64, 64))
    freeze(model, FreezeConfig(num_layers=39))
    assert {name.rpartition(".")[0] for name in frozen_names(model)} == set(seen[:39])


def test_24_layers_are_the_39_tensors_of_the_published_notebook_and_end_with_a_stage() -> None:
    """Written out: `for name, p in list(model.named_parameters())[:39]: p.requires_grad = False`."""
    model = build(ModelConfig(name="tf_efficientnet_b0"), seed=0)
    names = [name for name, _ in model.named_parameters()]
    freeze(model, FreezeConfig(num_layers=24))
    assert frozen_names(model) == names[:39]
    assert {name.partition(".")[0] for name in names[:39] if "blocks" not in name} == {"conv_stem", "bn1"}
    stages = [{name.split(".")[1] for name in part if "blocks" in name} for part in (names[:39], names[39:])]
    assert stages == [{"0", "1"}, {"2", "3", "4", "5", "6"}]
    norms = {name: module for name, module in model.named_modules() if name.rpartition(".")[2].startswith("bn")}
    first = ("bn1", "blocks.0", "blocks.1")
    assert {name for name, norm in norms.items() if not norm.training} == {n for n in norms if n.startswith(first)}


def test_a_change_of_mode_is_undone_by_freezing_again() -> None:
    model = build(ModelConfig(name="resnet18"), seed=0)
    config = FreezeConfig(num_layers=2)
    freeze(model, config)
    model.train()
    assert model.bn1.training
    freeze(model, config)
    assert not model.bn1.training
    assert model.layer1[0].bn1.training


def test_nothing_frozen_changes_nothing() -> None:
    model = build(ModelConfig(name="resnet18"), seed=0)
    freeze(model, FreezeConfig())
    assert not frozen_names(model)


def test_freezing_every_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"freeze\.num_layers: 2 of the model's 2 layers leave none to train; lower it"):
        freeze(model, FreezeConfig(num_layers=2))


def test_a_negative_number_is_refused_when_parsed() -> None:
    with pytest.raises(UserError, match="num_layers: expected 0 or more, found -1"):
        from_dict(FreezeConfig, {"num_layers": -1})
