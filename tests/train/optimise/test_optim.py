"""Optimisers and their parameter groups."""

import pytest
import torch
from torch import nn

from hms_dist.config.load import from_dict
from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.train.optimise.optim import OptimConfig, build_optimizer, parameter_groups, set_learning_rate


def test_optimizer_takes_what_is_trainable() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    config = OptimConfig(lr=0.02, betas=(0.8, 0.99), weight_decay=0.3, eps=1e-6)
    optimizer = build_optimizer(config, model)
    (group,) = optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in model[1].parameters()]
    assert (group["lr"], group["betas"], group["weight_decay"], group["eps"]) == (0.02, (0.8, 0.99), 0.3, 1e-6)
    set_learning_rate(optimizer, 0.005)
    assert group["lr"] == 0.005
    before = model[1].weight.detach().clone()
    model[1].weight.grad, model[1].bias.grad = torch.zeros(2, 4), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(model[1].weight, before * (1 - 0.005 * 0.3))  # decay is decoupled


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
@pytest.mark.usefixtures("torch_rng")
def test_each_optimizer_steps_as_torchs(name: str) -> None:
    ours, theirs = nn.Parameter(torch.linspace(-1, 1, 5)), nn.Parameter(torch.linspace(-1, 1, 5))
    model = nn.Module()
    model.register_parameter("weight", ours)
    config = OptimConfig(name=name, lr=0.01, betas=(0.7, 0.9), momentum=0.6, eps=1e-3, weight_decay=0.2)
    optimizer = build_optimizer(config, model)
    adam = {"lr": 0.01, "betas": (0.7, 0.9), "eps": 1e-3, "weight_decay": 0.2}
    reference = {
        "adamw": lambda: torch.optim.AdamW([theirs], **adam),
        "adam": lambda: torch.optim.Adam([theirs], **adam),
        "sgd": lambda: torch.optim.SGD([theirs], lr=0.01, momentum=0.6, weight_decay=0.2),
    }[name]()
    for _ in range(4):
        theirs.grad = torch.randn(5)
        ours.grad = theirs.grad.clone()
        optimizer.step()
        reference.step()
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tiny_vit_5m_224", "resnet18", "convnext_atto"])
def test_groups_hold_every_parameter_once_and_separate_the_head(name: str) -> None:
    model = build(ModelConfig(name=name), seed=0)
    groups = parameter_groups(OptimConfig(head_lr_factor=3.0, weight_decay=0.05, lr=0.1), model)
    found = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(found) == len(set(found))
    assert set(found) == {id(parameter) for parameter in model.parameters()}
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    assert {group["lr_scale"] for group in groups} == {1.0, 3.0}
    for group in groups:
        assert all((id(parameter) in head) == (group["lr_scale"] == 3.0) for parameter in group["params"])
        assert group["lr"] == pytest.approx(0.1 * group["lr_scale"])
        assert group["weight_decay"] == 0.05


def test_rate_and_momentum_are_set_in_every_group(rng) -> None:
    rate, momentum = rng.uniform(0.01, 1), rng.uniform(0.5, 0.99)
    model = build(ModelConfig(name="resnet18"), seed=0)
    for name in ("adamw", "sgd"):
        optimizer = build_optimizer(OptimConfig(name=name, head_lr_factor=2.0), model)
        set_learning_rate(optimizer, rate, momentum)
        assert sorted(group["lr"] for group in optimizer.param_groups) == [rate, 2 * rate]
        for group in optimizer.param_groups:
            assert (group["momentum"] if name == "sgd" else group["betas"][0]) == momentum
        if name == "adamw":
            assert optimizer.param_groups[0]["betas"][1] == 0.999


def test_options_at_their_bounds_are_taken() -> None:
    OptimConfig(momentum=0.0, betas=(0.0, 0.0), weight_decay=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lion"}, "optim.name: unknown 'lion'; one of: adamw, "),
        ({"lr": 0}, "lr: expected a number above 0, found 0"),
        ({"eps": -1e-8}, "eps: expected a number above 0, found -1e-08"),
        ({"head_lr_factor": 0}, "head_lr_factor: expected a number above 0, found 0"),
        ({"betas": [0.9, 1.0]}, r"betas: expected two numbers in \[0, 1\), found \[0.9, 1.0\]"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), found 1.0"),
        ({"weight_decay": -1}, "weight_decay: expected 0 or more, found -1"),
        ({"max_grad_norm": 0}, "max_grad_norm: expected a number above 0, or null, found 0"),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(OptimConfig, options)
