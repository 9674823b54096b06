"""Schedules against torch's own schedulers, in any order of steps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from hms_dist.config.load import from_dict, load
from hms_dist.core.errors import UserError
from hms_dist.train.optimise.schedules import ScheduleConfig, cycled_momentum, learning_rate_factor
from hms_dist.train.settings import TrainConfig


def torch_curve(make: Callable[[torch.optim.Optimizer], LRScheduler], num_steps: int) -> list[float]:
    """Learning rate of each step under torch's scheduler, from a peak of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, curve = make(optimizer), []
    for _ in range(num_steps):
        curve.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return curve


def our_curve(schedule: ScheduleConfig, epoch_ends: list[int], rng: np.random.Generator) -> list[float]:
    """The factors, asked for in random order: they need no history."""
    steps = rng.permutation(epoch_ends[-1]).tolist()
    factors = {step: learning_rate_factor(schedule, step, epoch_ends) for step in steps}
    return [factors[step] for step in range(epoch_ends[-1])]


def test_warmup_cosine_equals_torch(rng: np.random.Generator) -> None:
    num_warmup = int(rng.integers(1, 41))
    num_steps = 10 * num_warmup

    def reference(optimizer: torch.optim.Optimizer) -> LRScheduler:
        warmup = LinearLR(optimizer, start_factor=0.1, total_iters=num_warmup)
        cosine = CosineAnnealingLR(optimizer, num_steps - num_warmup, eta_min=0.01)
        return SequentialLR(optimizer, [warmup, cosine], [num_warmup])

    expected = torch_curve(reference, num_steps)
    assert our_curve(ScheduleConfig(), [num_steps], rng) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("warmup_share", [0.0, 0.05, 0.3, 0.77])
def test_one_cycle_equals_torch_with_its_momentum(warmup_share: float, rng: np.random.Generator) -> None:
    num_steps = int(rng.integers(41, 401))
    schedule = ScheduleConfig(
        name="one_cycle", warmup_share=warmup_share, start_factor=0.04, final_factor=4e-6, momentum_range=(0.85, 0.95)
    )

    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(optimizer, max_lr=1.0, total_steps=num_steps, pct_start=warmup_share)
    for step in range(num_steps):
        (group,) = optimizer.param_groups
        assert learning_rate_factor(schedule, step, [num_steps]) == pytest.approx(group["lr"], rel=1e-9, abs=1e-12)
        assert cycled_momentum(schedule, step, [num_steps]) == pytest.approx(group["momentum"], rel=1e-9)
        optimizer.step()
        if step < num_steps - 1:
            scheduler.step()


RECIPES = ("seed_000", "seed_000_stage_1", "seed_000_model_loss", "seed_001")


@pytest.mark.parametrize("name", RECIPES)
def test_the_cycle_of_the_seeds_is_that_of_the_public_notebook(
    name: str, repository: Path, rng: np.random.Generator
) -> None:
    """The notebook that both seeds build on: `OneCycleLR(optimizer, max_lr=1e-3, epochs=..., steps_per_epoch=...,
    pct_start=0.1, anneal_strategy="cos", final_div_factor=100)` on AdamW, torch's defaults for the rest."""
    recipe = str(repository / f"configs/train/{name}.yaml")
    config = load(TrainConfig, ["--config", recipe, "--shards", "s", "--out", "o"])
    num_steps = int(rng.integers(41, 401))
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = OneCycleLR(
        optimizer, max_lr=1e-3, total_steps=num_steps, pct_start=0.1, anneal_strategy="cos", final_div_factor=100
    )
    for step in range(num_steps):
        (group,) = optimizer.param_groups
        rate = config.optim.lr * learning_rate_factor(config.schedule, step, [num_steps])
        assert rate == pytest.approx(group["lr"], rel=1e-9)
        assert cycled_momentum(config.schedule, step, [num_steps]) == pytest.approx(group["betas"][0], rel=1e-9)
        optimizer.step()
        if step < num_steps - 1:
            scheduler.step()


def test_cosine_annealing_equals_torch(rng: np.random.Generator) -> None:
    num_steps = int(rng.integers(20, 201))
    schedule = ScheduleConfig(name="cosine_annealing", final_factor=0.02, warmup_share=0.0)
    expected = torch_curve(lambda o: CosineAnnealingLR(o, num_steps, eta_min=0.02), num_steps)
    assert our_curve(schedule, [num_steps], rng) == pytest.approx(expected, rel=1e-6)  # torch's is a recursion


def test_constant_equals_torch(rng: np.random.Generator) -> None:
    expected = torch_curve(lambda o: LambdaLR(o, lambda _: 1.0), 7)
    assert our_curve(ScheduleConfig(name="constant"), [3, 7], rng) == expected


def test_warmup_cosine_at_its_ends(rng: np.random.Generator) -> None:
    schedule = ScheduleConfig(warmup_share=0.25, start_factor=0.2, final_factor=0.05)
    num_steps = int(rng.integers(50, 1001))
    factors = [learning_rate_factor(schedule, step, [num_steps]) for step in range(num_steps + 1)]
    assert factors[0] == pytest.approx(0.2)
    assert factors[-1] == pytest.approx(0.05)
    assert max(factors) <= 1
    peak = factors.index(max(factors))
    assert abs(peak - num_steps / 4) <= 1
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


@pytest.mark.parametrize("name", ["warmup_cosine", "one_cycle", "cosine_annealing", "constant"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 10])
def test_every_step_of_a_short_run_has_a_rate(name: str, num_steps: int) -> None:
    schedule = ScheduleConfig(name=name)
    for step in range(num_steps + 1):
        assert 0 < learning_rate_factor(schedule, step, [num_steps]) <= 1
    for step in (-1, num_steps + 1):
        with pytest.raises(ValueError, match=f"step {step} of a run of {num_steps} steps"):
            learning_rate_factor(schedule, step, [num_steps])
    assert cycled_momentum(schedule, 0, [num_steps]) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "linear"}, "schedule.name: unknown 'linear'; one of: warmup_cosine, one_cycle, cosine_annealing"),
        ({"warmup_share": 1.0}, r"warmup_share: expected a share in \[0, 1\), found 1.0"),
        ({"start_factor": 2}, r"start_factor: expected a factor in \[0, 1\], found 2"),
        ({"final_factor": -0.5}, r"final_factor: expected a factor in \[0, 1\], found -0.5"),
        ({"momentum_range": [0.8, 0.9]}, "momentum_range: belongs to the schedule one_cycle, name is warmup_cosine"),
        (
            {"name": "one_cycle", "momentum_range": [0.9, 0.8]},
            r"momentum_range: expected low <= high in \[0, 1\), found \[0.9, 0.8\]",
        ),
    ],
)
def test_bad_options_are_refused_when_parsed(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_dict(ScheduleConfig, options)
