"""Batch norm by group: a step is the same for any passes and ranks, and updates statistics by the formula."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hms_dist.core.errors import UserError
from hms_dist.model.build import ModelConfig, build
from hms_dist.model.by_rows import check_rows, convert
from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms, batch_norms
from hms_dist.model.loss import kl_rows
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups

CONFIG = ModelConfig(name="test_efficientnet", drop_rate=0.3, drop_path_rate=0.3)
NUM_GROUPS, GROUP_ROWS = 4, 2
SEED = 3
Passes = Sequence[Sequence[int]]
"""Groups of each pass."""
SINGLY = [[group] for group in range(NUM_GROUPS)]


def make_model(config: ModelConfig = CONFIG) -> tuple[nn.Module, PassRows]:
    """A network converted to rows and checked, in float64."""
    model, rows = build(config, seed=11, size=(64, 64)).double(), PassRows(torch.device("cpu"))
    convert(model, rows)
    check_rows(config.name, model, rows, lambda model, x: model(x), torch.zeros(1, 1, 64, 64, dtype=torch.float64))
    return model, rows


def make_step(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images (groups, rows, 1, 64, 64) whose distribution differs between groups, and targets (groups, rows, 6)."""
    scale = torch.linspace(0.5, 3, NUM_GROUPS).view(-1, 1, 1, 1, 1)
    images = torch.randn(NUM_GROUPS, GROUP_ROWS, 1, 64, 64, dtype=torch.float64, generator=generator)
    targets = torch.rand(NUM_GROUPS, GROUP_ROWS, 6, dtype=torch.float64, generator=generator)
    return scale * images + scale, targets.softmax(-1)


def run_passes(
    model: nn.Module, rows: PassRows, norms: GroupNorms, step: int, batch: tuple[Tensor, Tensor], passes: Passes
) -> dict[int, Tensor]:
    """Compute one rank's part of a step, as the trainer does: gradients of the mean loss accumulate in the model.

    Returns the logits of each group.
    """
    norms.begin_step()
    outputs: dict[int, Tensor] = {}
    for groups in passes:
        places = [group * GROUP_ROWS + row for group in groups for row in range(GROUP_ROWS)]
        rows.begin(whole_groups(len(groups), GROUP_ROWS), draw_words(SEED, 0, step, places))
        norms.begin_pass()
        images, targets = (part[list(groups)].flatten(0, 1) for part in batch)
        logits = model(images)
        (kl_rows(logits, targets).sum() / (NUM_GROUPS * GROUP_ROWS)).backward()
        norms.after_pass()
        outputs |= dict(zip(groups, logits.detach().split(GROUP_ROWS), strict=True))
    return outputs


def summing(num_ranks: int) -> Callable[[Tensor], None]:
    """Return an all-reduce between threads."""
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


@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("test_efficientnet", [[0, 1], [2, 3]]),
        ("test_efficientnet", [[3, 0], [2], [1]]),
        ("test_efficientnet", [[0, 1, 2, 3]]),
        ("test_efficientnet", [[2, 0, 3, 1]]),
        ("resnet10t", [[0, 1, 2], [3]]),
    ],
)
def test_passes_do_not_change_a_step(name: str, passes: Passes, torch_rng: torch.Generator) -> None:
    """Answers, gradients and running statistics of passes of one group, of several, of all, in any order."""
    config = ModelConfig(name=name, drop_rate=0.3, drop_path_rate=0.3)
    batch = make_step(torch_rng)
    steps = []
    for each in (SINGLY, passes):
        model, rows = make_model(config)
        for parameter in model.parameters():
            if not parameter.any():  # scales of branches would hide them
                nn.init.constant_(parameter, 0.5)
        before = copy.deepcopy(model.state_dict())
        norms = GroupNorms(model, rows)
        outputs = run_passes(model, rows, norms, 0, batch, each)
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)  # until the step ends
        norms.end_step(NUM_GROUPS)
        gradients = {key: parameter.grad for key, parameter in model.named_parameters()}
        steps.append(({str(group): outputs[group] for group in sorted(outputs)}, gradients, model.state_dict()))
        assert all(gradient is not None and gradient.any() for gradient in gradients.values())
        assert not torch.equal(model.state_dict()["bn1.running_mean"], before["bn1.running_mean"])
    for one, other in zip(*steps, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shares", [[[[0, 1]], [[2], [3]]], [[[3]], [[0, 1, 2]]], [[[1], [0]], [[3]], [[2]]]])
def test_ranks_do_not_change_the_run(shares: list[Passes], torch_rng: torch.Generator) -> None:
    alone, rows_alone = make_model()
    norms_alone = GroupNorms(alone, rows_alone)
    made = [make_model() for _ in shares]
    ranks = [model for model, _ in made]
    norms = [GroupNorms(model, rows) for model, rows in made]
    for step in range(2):
        batch = make_step(torch_rng)
        run_passes(alone, rows_alone, norms_alone, step, batch, SINGLY)
        norms_alone.end_step(NUM_GROUPS)
        descend(alone, [parameter.grad for parameter in alone.parameters()])  # type: ignore[misc]
        for (model, rows), norm, mine in zip(made, norms, shares, strict=True):
            run_passes(model, rows, norm, step, batch, mine)
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
    """Return a list for each norm, to which every forward pass appends the norm's input."""
    seen: list[list[Tensor]] = [[] for _ in norms]
    for norm, inputs in zip(norms, seen, strict=True):
        norm.register_forward_pre_hook(lambda _, values, into=inputs: into.append(values[0].detach().clone()))  # type: ignore[misc]
    return seen


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("passes", [SINGLY, [[2, 0], [1, 3]]])
def test_running_statistics_follow_the_formula(passes: Passes, autocast: bool, torch_rng: torch.Generator) -> None:
    model, rows = make_model()
    model = model.float() if autocast else model
    found = batch_norms(model)
    assert all(isinstance(norm, GroupBatchNorm) for norm in found)
    for position, norm in enumerate(found):
        norm.momentum = 0.05 + 0.002 * position  # each its own
        norm.running_mean.normal_()  # type: ignore[union-attr]
    before = [copy.deepcopy(norm.state_dict()) for norm in found]
    seen = inputs_of(found)
    images, targets = make_step(torch_rng)
    norms = GroupNorms(model, rows)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        run_passes(model, rows, norms, 0, (images.to(next(model.parameters()).dtype), targets), passes)
    norms.end_step(NUM_GROUPS)
    for norm, saved, inputs in zip(found, before, seen, strict=True):
        groups = [group.double() for x in inputs for group in x.split(GROUP_ROWS)]
        assert len(groups) == NUM_GROUPS
        mean = torch.stack([x.mean((0, 2, 3)) for x in groups]).mean(0)
        variance = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in groups]).mean(0)
        m, tolerance = norm.momentum, 1e-5 if autocast else 1e-12
        for name, value in (("running_mean", mean), ("running_var", variance)):
            expected = (1 - m) * saved[name] + m * value  # type: ignore[operator]
            torch.testing.assert_close(getattr(norm, name).double(), expected.double(), rtol=tolerance, atol=tolerance)
        assert norm.num_batches_tracked == saved["num_batches_tracked"] + 1


@pytest.mark.parametrize("passes", [SINGLY, [[0, 1, 2], [3]]])
def test_computing_a_pass_again_changes_nothing(passes: Passes, torch_rng: torch.Generator) -> None:
    plain, plain_rows = make_model()
    config = ModelConfig(name=CONFIG.name, drop_rate=0.3, drop_path_rate=0.3, grad_checkpointing=True)
    again, again_rows = make_model(config)
    batch, outputs = make_step(torch_rng), []
    uses: list[int] = []
    again.blocks[0][0].register_forward_pre_hook(lambda *_: uses.append(1))
    for model, rows in ((plain, plain_rows), (again, again_rows)):
        norms = GroupNorms(model, rows)
        outputs.append(run_passes(model, rows, norms, 0, batch, passes))
        norms.end_step(NUM_GROUPS)
    assert len(uses) == 2 * len(passes)  # it was computed again
    assert all(torch.equal(one, outputs[0][group]) for group, one in outputs[1].items())
    torch.testing.assert_close(again.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)
    for left, right in zip(again.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-10, atol=1e-12)


def test_frozen_norms_stay_as_they_are(torch_rng: torch.Generator) -> None:
    model, rows = make_model()
    frozen = [name for name, module in model.named_modules() if name.startswith("blocks.0") and hasattr(module, "eps")]
    for name in frozen:
        model.get_submodule(name).eval()
    before = copy.deepcopy(model.state_dict())
    norms = GroupNorms(model, rows)
    run_passes(model, rows, norms, 0, make_step(torch_rng), [[0, 1], [2], [3]])
    norms.end_step(NUM_GROUPS)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert frozen
    assert not any(name.startswith("blocks.0") for name in moved)
    assert "bn1.running_mean" in moved
    model.eval()
    before = copy.deepcopy(model.state_dict())
    norms.begin_step()
    norms.end_step(NUM_GROUPS, summing(2))  # would block forever if it were called
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_cancelled_step_leaves_no_trace(torch_rng: torch.Generator) -> None:
    """The model and the next step are unchanged."""
    model, rows = make_model()
    other, other_rows = make_model()
    before, momenta = copy.deepcopy(model.state_dict()), [norm.momentum for norm in batch_norms(model)]
    norms = GroupNorms(model, rows)
    images, targets = make_step(torch_rng)
    corrupted = images.clone()
    corrupted[1] = torch.nan
    run_passes(model, rows, norms, 0, (corrupted, targets), [[0, 1], [2, 3]])
    norms.cancel_step()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert [norm.momentum for norm in batch_norms(model)] == momenta
    for each, its_rows, its_norms in ((model, rows, norms), (other, other_rows, GroupNorms(other, other_rows))):
        run_passes(each, its_rows, its_norms, 1, (images, targets), [[0, 1], [2, 3]])
        its_norms.end_step(NUM_GROUPS)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_works_under_ddp(tmp_path: Path, torch_rng: torch.Generator) -> None:
    (plain, plain_rows), (inner, inner_rows), batch = make_model(), make_model(), make_step(torch_rng)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(inner, broadcast_buffers=False)
        for model, rows in ((plain, plain_rows), (wrapped, inner_rows)):
            norms = GroupNorms(model, rows)
            run_passes(model, rows, norms, 0, batch, [[0, 1], [2, 3]])
            norms.end_step(NUM_GROUPS, None if model is plain else torch.distributed.all_reduce)
        torch.testing.assert_close(inner.state_dict(), plain.state_dict(), rtol=1e-12, atol=1e-12)
        for left, right in zip(inner.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(left.grad, right.grad, rtol=1e-10, atol=1e-12)
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
        (
            nn.BatchNorm2d(2, affine=False, track_running_stats=False),
            r"^model: batch norm 1 has neither parameters nor statistics",
        ),
    ],
)
def test_other_running_statistics_are_refused(layer: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(nn.Sequential(nn.Conv2d(1, 2, 3), layer), PassRows(torch.device("cpu")))
    assert batch_norms(nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.LayerNorm(3))) == []


@pytest.mark.parametrize(("affine", "tracked"), [(True, True), (False, True), (True, False)])
@pytest.mark.usefixtures("torch_rng")
def test_a_norm_without_parameters_or_without_statistics(affine: bool, tracked: bool) -> None:
    rows, groups = PassRows(torch.device("cpu")), whole_groups(3, 4)
    theirs = nn.BatchNorm2d(5, affine=affine, track_running_stats=tracked).double()
    model = nn.Sequential(copy.deepcopy(theirs))
    before = copy.deepcopy(model.state_dict())
    convert(model, rows)
    assert list(model.state_dict()) == list(before)
    rows.begin(groups, draw_words(0, 0, 0, range(12)))
    norms = GroupNorms(model, rows)
    norms.begin_step()
    norms.begin_pass()
    x = torch.randn(12, 5, 6, 6, dtype=torch.float64) * 2 + 1
    wanted = torch.cat([copy.deepcopy(theirs)(group) for group in x.split(4)])
    assert torch.allclose(model(x), wanted, rtol=1e-12, atol=1e-12)
    norms.after_pass()
    norms.end_step(3)
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items()) == tracked
    theirs.load_state_dict({key.removeprefix("0."): value for key, value in model.state_dict().items()})
    assert torch.allclose(model.eval()(x), theirs.eval()(x), rtol=1e-12, atol=1e-12)
