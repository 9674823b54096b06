"""The schedule against torch's own schedulers, and the optimiser's options."""

import random

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from hms_dist.config import from_dict
from hms_dist.errors import UserError
from hms_dist.train.optim import (
    OptimConfig,
    ScheduleConfig,
    build_optimizer,
    learning_rate_factor,
    set_learning_rate,
)


def test_schedule_equals_torch_and_needs_no_history() -> None:
    num_warmup = random.randint(1, 40)
    num_steps = 10 * num_warmup
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    warmup = LinearLR(optimizer, start_factor=0.1, total_iters=num_warmup)
    cosine = CosineAnnealingLR(optimizer, num_steps - num_warmup, eta_min=0.01)
    reference = SequentialLR(optimizer, [warmup, cosine], [num_warmup])
    expected = []
    for _ in range(num_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    steps = random.sample(range(num_steps), num_steps)
    factors = {step: learning_rate_factor(ScheduleConfig(), step, num_steps) for step in steps}
    assert [factors[step] for step in range(num_steps)] == pytest.approx(expected, rel=1e-9)


def test_schedule_at_its_ends() -> None:
    schedule = ScheduleConfig(warmup_share=0.25, start_factor=0.2, final_factor=0.05)
    num_steps = random.randint(50, 1000)
    factors = [learning_rate_factor(schedule, step, num_steps) for step in range(num_steps + 1)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[-1] == pytest.approx(0.05)
    assert max(factors) <= 1
    peak = factors.index(max(factors))
    assert abs(peak - num_steps / 4) <= 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert learning_rate_factor(ScheduleConfig(warmup_share=0), 0, 1) == 1
    for step in (-1, num_steps + 1):
        with pytest.raises(ValueError, match=f"step {step} of a run of {num_steps} steps"):
            learning_rate_factor(schedule, step, num_steps)


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


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (OptimConfig, {"lr": 0}, "lr: expected a number above 0, found 0"),
        (OptimConfig, {"eps": -1e-8}, "eps: expected a number above 0, found -1e-08"),
        (OptimConfig, {"betas": [0.9, 1.0]}, r"betas: expected two numbers in \[0, 1\), found \[0.9, 1.0\]"),
        (OptimConfig, {"weight_decay": -1}, "weight_decay: expected 0 or more, found -1"),
        (OptimConfig, {"max_grad_norm": 0}, "max_grad_norm: expected a number above 0, or null, found 0"),
        (ScheduleConfig, {"warmup_share": 1.0}, r"warmup_share: expected a share in \[0, 1\), found 1.0"),
        (ScheduleConfig, {"start_factor": 2}, r"start_factor: expected a factor in \[0, 1\], found 2"),
        (ScheduleConfig, {"final_factor": -0.5}, r"final_factor: expected a factor in \[0, 1\], found -0.5"),
    ],
)
def test_bad_options_are_refused_when_parsed(cls: type, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(cls, options)
