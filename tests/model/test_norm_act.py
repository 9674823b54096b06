"""norm_act (norm by groups, drop-path, shortcut, activation) against torch's modules, and its kernels against it."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn

from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms
from hms_dist.model.layout import nchw_to_rows, rows_to_nchw
from hms_dist.model.norm_act import ACTIVATIONS, activation_of, apply, differentiate, norm_act
from hms_dist.model.pass_rows import PassRows, Pieces, draw_words, whole_groups

SHAPES = [(4, 48, 6, 8), (2, 96, 5, 7), (4, 384, 4, 6), (2, 7, 3, 5), (6, 192, 6, 4), (2, 576, 4, 4), (8, 32, 64, 40)]
"""Pictures: places that are read several at once, alone, and with columns that do not fill a block."""
KINDS = list(product([False, True], [False, True], ACTIVATIONS.values()))
"""With a shortcut, with drop-path, activation."""
FUNCTIONS = {number: kind() for kind, number in ACTIVATIONS.items()}
JUMPS = {ACTIVATIONS[nn.ReLU]: (0,), ACTIVATIONS[nn.Hardswish]: (-3, 3)}
"""Activation -> values at which its slope jumps."""
JUMPS = {ACTIVATIONS[nn.ReLU]: (0,), ACTIVATIONS[nn.Hardswish]: (-3, 3)}
"""Activation -> values at which its slope jumps."""


def norm_of(channels: int, groups: Pieces, **options: float) -> tuple[GroupBatchNorm, nn.BatchNorm2d, PassRows]:
    """A norm by groups and torch's norm with the same random parameters, float64; a pass has begun."""
    plain = nn.BatchNorm2d(channels, **options).double()
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    rows = PassRows(torch.device("cpu"))
    ours = GroupBatchNorm(nn.BatchNorm2d(channels, **options).double(), rows)
    ours.load_state_dict(plain.state_dict())
    begin(ours, rows, groups)
    return ours, plain, rows


def begin(norm: nn.Module, rows: PassRows, groups: Pieces) -> GroupNorms:
    rows.begin(groups, draw_words(0, 0, 0, range(groups.num_rows)))
    norms = GroupNorms(norm, rows)
    norms.begin_step()
    norms.begin_pass()
    return norms


def pictures(*shape: int) -> Tensor:
    """Random images with a mean other than zero, which require gradients."""
    values = torch.randn(shape, dtype=torch.float64) * 3 + torch.randn(shape[0], shape[1], 1, 1, dtype=torch.float64)
    return values.requires_grad_()


@pytest.mark.parametrize(("shortcut", "drop", "act"), KINDS)
@pytest.mark.usefixtures("torch_rng")
def test_values_and_gradients_are_those_of_torchs_modules_group_by_group(shortcut: bool, drop: bool, act: int) -> None:
    ours, theirs, rows = norm_of(5, whole_groups(2, 3), eps=1e-3)
    x, added = pictures(6, 5, 4, 6), pictures(6, 5, 4, 6)
    keep = torch.tensor([0, 1.25, 1.25, 1.25, 0, 1.25], dtype=torch.float64).view(6, 1, 1, 1) if drop else None
    flat = nchw_to_rows(x)
    out = norm_act(flat, ours, rows, act=act, shortcut=nchw_to_rows(added) if shortcut else None, keep=keep)
    found = rows_to_nchw(out, 4, 6)
    wanted = torch.cat([theirs(x[:3]), theirs(x[3:])])
    wanted = wanted if keep is None else wanted * keep
    wanted = FUNCTIONS[act](wanted + added if shortcut else wanted)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(wanted)
    leaves = [x, *([added] if shortcut else [])]
    gradients = torch.autograd.grad(found, [*leaves, *ours.parameters()], grad)
    for one, other in zip(gradients, torch.autograd.grad(wanted, [*leaves, *theirs.parameters()], grad), strict=True):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("shape", [(6, 5), (12, 5), (6, 5, 7), (6, 5, 3, 4), (6, 5, 2, 3, 4)])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.usefixtures("torch_rng")
def test_a_norm_takes_rows_tokens_and_pictures_in_any_memory_order(shape: tuple[int, ...], channels_last: bool) -> None:
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)]
    rows = PassRows(torch.device("cpu"))
    theirs, ours = kind(5).double(), GroupBatchNorm(kind(5).double(), rows)
    begin(ours, rows, whole_groups(2, 3))
    x = torch.randn(shape, dtype=torch.float64) * 2 + 1
    given = x.to(memory_format=torch.channels_last) if channels_last and x.dim() == 4 else x
    half = len(x) // 2
    wanted = torch.cat([theirs(x[:half]), theirs(x[half:])])
    assert torch.allclose(ours(given), wanted, rtol=1e-12, atol=1e-12)
    assert ours(given).shape == x.shape


@pytest.mark.usefixtures("torch_rng")
def test_timms_norms_keep_their_activation_and_evaluation_is_theirs() -> None:
    from timm.layers import BatchNormAct2d

    rows = PassRows(torch.device("cpu"))
    for layer in (nn.SiLU, nn.Hardtanh):
        theirs = BatchNormAct2d(5, act_layer=layer, inplace=False).double()
        ours = GroupBatchNorm(BatchNormAct2d(5, act_layer=layer, inplace=False).double(), rows)
        begin(ours, rows, whole_groups(1, 4))
        x = torch.randn(4, 5, 6, 6, dtype=torch.float64)
        assert torch.allclose(ours(x), theirs(x), rtol=1e-12, atol=1e-12)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        ours.load_state_dict(theirs.state_dict())
        assert torch.equal(ours.eval()(x), theirs.eval()(x))
    assert activation_of(nn.GELU("tanh")) is None


@pytest.mark.usefixtures("torch_rng")
def test_the_operators_keep_torchs_rules() -> None:
    x, added = (torch.randn(12, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    keep = torch.rand(4, dtype=torch.float64)
    starts, piece = torch.tensor([0, 2, 4], dtype=torch.int32), torch.tensor([0, 0, 1, 1], dtype=torch.int32)
    layout = (starts, piece, None, 0, 2, 3)
    given = (x.detach(), weight.detach(), 1e-5, *layout)
    torch.library.opcheck(torch.ops.hms_dist.norm_moments.default, given)
    mean, rstd, _ = torch.ops.hms_dist.norm_moments(*given).unbind()
    for shortcut, dropped in ((None, None), (added, keep)):
        arguments = (x, weight, bias, mean, rstd, shortcut, dropped, *layout, 1)
        torch.library.opcheck(torch.ops.hms_dist.norm_act.default, arguments)


def far_from_zero(device: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(4 * 20_000, 96, device=device) + 1000
    starts = torch.tensor([0, 2, 4], dtype=torch.int32, device=device)
    piece = torch.tensor([0, 0, 1, 1], dtype=torch.int32, device=device)
    found = torch.ops.hms_dist.norm_moments(x, torch.ones(96, device=device), 0.0, starts, piece, None, 0, 2, 20_000)
    exact = x.double().view(2, 40_000, 96)
    return found, torch.stack([exact.mean(1), 1 / exact.std(1, correction=0), exact.var(1)])


@pytest.mark.usefixtures("torch_rng")
def test_variances_far_from_zero_do_not_vanish_in_the_mean_s_square() -> None:
    found, wanted = far_from_zero("cpu")
    assert torch.allclose(found.double(), wanted, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.usefixtures("torch_rng")
def test_the_kernels_sum_many_rows_far_from_zero() -> None:
    found, wanted = far_from_zero("cuda")
    assert torch.allclose(found.double(), wanted, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("shortcut", "drop", "act"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.usefixtures("torch_rng")
def test_the_kernels_compute_the_plain_arithmetic(
    shape: tuple[int, ...], shortcut: bool, drop: bool, act: int, dtype: torch.dtype, tolerance: float, slots: bool
) -> None:
    """Also of groups that span several ranks, of which there is one here. Both get the same moments: the rounding of a
    mean moves a sum over 10,000 rows by more than the sum's own.
    """
    batch, channels, height, width = shape
    places = height * width
    x, added, grad = (torch.randn(batch * places, channels, device="cuda").add(2).to(dtype) for _ in range(3))
    weight, bias = (torch.randn(channels, device="cuda") for _ in range(2))
    keep = torch.rand(batch, device="cuda").round() * 1.25 if drop else None
    starts = torch.tensor([0, batch // 2, batch], dtype=torch.int32, device="cuda")
    piece = (torch.arange(batch, device="cuda") >= batch // 2).int()
    slot = torch.arange(2, device="cuda") if slots else None
    layout = (starts, piece, slot, 2 if slots else 0, batch // 2, places)
    moments = torch.ops.hms_dist.norm_moments
    found = (moments(x, weight, 1e-5, *layout),)
    given = (weight, bias, *found[0][:2], added if shortcut else None, keep)
    exact = [None if tensor is None else tensor.double() for tensor in given]
    wanted = (moments(x.double(), weight.double(), 1e-5, *layout),)
    exact[2:4] = wanted[0][:2]
    before = apply(x.double(), *exact, *layout, ACTIVATIONS[nn.Identity])
    for jump in JUMPS.get(act, ()):  # rounding decides which slope a value that near has
        grad = grad.masked_fill((before - jump).abs() < 1e-3, 0)
    found += (apply(x, *given, *layout, act), *differentiate(grad, x, *given, *layout, act))
    wanted += (apply(x.double(), *exact, *layout, act), *differentiate(grad.double(), x.double(), *exact, *layout, act))
    for name, ours, theirs in zip(("moments", "out", "x", "weight", "bias", "shortcut"), found, wanted, strict=True):
        assert ours.shape == theirs.shape, name
        if theirs.numel():
            assert (ours.double() - theirs).norm() <= tolerance * theirs.norm(), name
