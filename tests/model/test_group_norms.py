"""Running statistics by group: the same on any number of ranks, equal to the formula, undone when asked."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hms_dist.model.draws import seed_group
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.group_norms import GroupNorms, batch_norms
from hms_dist.model.loss import kl_rows

CONFIG = ModelConfig(name="test_efficientnet", drop_rate=0.3, drop_path_rate=0.3)
NUM_GROUPS, GROUP_ROWS = 4, 2


def make_model(config: ModelConfig = CONFIG) -> nn.Module:
    return build(config, seed=11).double()


def make_step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (groups, rows, 1, 64, 64), unlike from group to group, and targets (groups, rows, 6)."""
    scale = torch.linspace(0.5, 3, NUM_GROUPS).view(-1, 1, 1, 1, 1)
    images = torch.randn(NUM_GROUPS, GROUP_ROWS, 1, 64, 64, dtype=torch.float64, generator=generator)
    targets = torch.rand(NUM_GROUPS, GROUP_ROWS, 6, dtype=torch.float64, generator=generator)
    return scale * images + scale, targets.softmax(-1)


def run_groups(
    model: nn.Module, norms: GroupNorms, step: int, batch: tuple[Tensor, Tensor], mine: Sequence[int]
) -> None:
    """One rank's part of a step, as the trainer does it: gradients of the mean loss add up in the model."""
    norms.begin_step()
    for group in mine:
        seed_group(3, 0, step, group)
        (kl_rows(model(batch[0][group]), batch[1][group]).sum() / (NUM_GROUPS * GROUP_ROWS)).backward()
        norms.after_group()


def summing(num_ranks: int) -> Callable[[Tensor], None]:
    """An all-reduce among threads."""
    barrier, parts = threading.Barrier(num_ranks), list[Tensor]()

    def all_reduce(vector: Tensor) -> None:
        parts.append(vector.clone())
        barrier.wait()
        vector.copy_(torch.stack(parts).sum(dim=0))

    return all_reduce


@torch.no_grad()
def descend(model: nn.Module, gradients: Sequence[Tensor]) -> None:
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.sub_(1e-3 * gradient)
        parameter.grad = None


@pytest.mark.parametrize("shares", [[[0, 1], [2, 3]], [[3], [0, 1, 2]]])
def test_ranks_do_not_change_the_run(shares: list[list[int]], torch_rng: torch.Generator) -> None:
    alone = make_model()
    norms_alone = GroupNorms(alone)
    ranks = [copy.deepcopy(alone) for _ in shares]
    norms = [GroupNorms(model) for model in ranks]
    for step in range(2):
        batch = make_step(torch_rng)
        run_groups(alone, norms_alone, step, batch, range(NUM_GROUPS))
        norms_alone.end_step(NUM_GROUPS)
        descend(alone, [parameter.grad for parameter in alone.parameters()])  # type: ignore[misc]
        for model, norm, mine in zip(ranks, norms, shares, strict=True):
            run_groups(model, norm, step, batch, mine)
        all_reduce = summing(len(ranks))
        with ThreadPoolExecutor(len(ranks)) as pool:
            list(pool.map(lambda norm: norm.end_step(NUM_GROUPS, all_reduce), norms))  # noqa: B023
        total = [sum(parameters) for parameters in zip(*([p.grad for p in m.parameters()] for m in ranks), strict=True)]
        for model in ranks:
            descend(model, total)
        tolerance = 1e-12 if step == 0 else 1e-8  # an untrained net multiplies rounding with every step
        for model in ranks:
            torch.testing.assert_close(model.state_dict(), alone.state_dict(), rtol=tolerance, atol=tolerance)


def inputs_of(norms: Sequence[_BatchNorm]) -> list[list[Tensor]]:
    """For each norm, a list that fills with its inputs, one a forward pass."""
    seen: list[list[Tensor]] = [[] for _ in norms]
    for norm, inputs in zip(norms, seen, strict=True):
        norm.register_forward_pre_hook(lambda _, values, into=inputs: into.append(values[0].detach().clone()))  # type: ignore[misc]
    return seen


@pytest.mark.parametrize("autocast", [False, True])
def test_running_statistics_follow_the_formula(autocast: bool, torch_rng: torch.Generator) -> None:
    model = make_model().float() if autocast else make_model()
    found = batch_norms(model)
    for position, norm in enumerate(found):
        norm.momentum = 0.05 + 0.002 * position  # each its own
        norm.running_mean.normal_()  # type: ignore[union-attr]
    before = [copy.deepcopy(norm.state_dict()) for norm in found]
    seen = inputs_of(found)
    images, targets = make_step(torch_rng)
    norms = GroupNorms(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        run_groups(model, norms, 0, (images.to(next(model.parameters()).dtype), targets), range(NUM_GROUPS))
    norms.end_step(NUM_GROUPS)
    for norm, saved, inputs in zip(found, before, seen, strict=True):
        mean = torch.stack([x.double().mean((0, 2, 3)) for x in inputs]).mean(0)
        variance = torch.stack([x.double().transpose(0, 1).flatten(1).var(1) for x in inputs]).mean(0)
        m, tolerance = norm.momentum, 1e-5 if autocast else 1e-12
        for name, value in (("running_mean", mean), ("running_var", variance)):
            expected = (1 - m) * saved[name] + m * value  # type: ignore[operator]
            torch.testing.assert_close(getattr(norm, name).double(), expected.double(), rtol=tolerance, atol=tolerance)
        assert norm.num_batches_tracked == saved["num_batches_tracked"] + 1


def test_computing_a_group_again_changes_nothing(torch_rng: torch.Generator) -> None:
    plain = make_model()
    config = ModelConfig(name=CONFIG.name, drop_rate=0.3, drop_path_rate=0.3, grad_checkpointing=True)
    again, batch = make_model(config), make_step(torch_rng)
    for model in (plain, again):
        norms = GroupNorms(model)
        run_groups(model, norms, 0, batch, range(NUM_GROUPS))
        norms.end_step(NUM_GROUPS)
    torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)
    for left, right in zip(again.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-10, atol=1e-12)


def test_frozen_norms_stay_as_they_are(torch_rng: torch.Generator) -> None:
    model = make_model()
    frozen = [name for name, module in model.named_modules() if name.startswith("blocks.0") and hasattr(module, "eps")]
    for name in frozen:
        model.get_submodule(name).eval()
    before = copy.deepcopy(model.state_dict())
    norms = GroupNorms(model)
    run_groups(model, norms, 0, make_step(torch_rng), range(NUM_GROUPS))
    norms.end_step(NUM_GROUPS)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert frozen
    assert not any(name.startswith("blocks.0") for name in moved)
    assert "bn1.running_mean" in moved
    model.eval()
    before = copy.deepcopy(model.state_dict())
    norms.begin_step()
    norms.end_step(NUM_GROUPS, summing(2))  # would wait for ever if it were called
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_cancelled_step_leaves_no_trace(torch_rng: torch.Generator) -> None:
    model = make_model()
    before, momenta = copy.deepcopy(model.state_dict()), [norm.momentum for norm in batch_norms(model)]
    norms = GroupNorms(model)
    images, targets = make_step(torch_rng)
    images[1] = torch.nan
    run_groups(model, norms, 0, (images, targets), range(NUM_GROUPS))
    norms.cancel_step()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [norm.momentum for norm in batch_norms(model)] == momenta


def test_works_under_ddp(tmp_path: Path, torch_rng: torch.Generator) -> None:
    plain, inner, batch = make_model(), make_model(), make_step(torch_rng)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(inner, broadcast_buffers=False)
        for model in (plain, wrapped):
            norms = GroupNorms(model)
            run_groups(model, norms, 0, batch, range(NUM_GROUPS))
            norms.end_step(NUM_GROUPS, None if model is plain else torch.distributed.all_reduce)
        torch.testing.assert_close(inner.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.BatchNorm2d(2, momentum=None), r"^model: batch norm 1 has momentum None \(a cumulative mean\), expected"),
        (
            nn.InstanceNorm2d(2, track_running_stats=True),
            r"^model: layer 1 \(InstanceNorm2d\) keeps running statistics",
        ),
    ],
)
def test_other_running_statistics_are_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        GroupNorms(nn.Sequential(nn.Conv2d(1, 2, 3), layer))
    assert batch_norms(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.LayerNorm(3))) == []
