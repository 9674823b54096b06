"""Norm, drop-path, shortcut and GELU as one operator against torch's modules; the kernels against its arithmetic."""

from itertools import product

import pytest
import torch
from hms_dist.model.tiny_vit.norm_act import norm_act, plain_apply, plain_backward
from torch import Tensor, nn
from torch.nn import functional

SHAPES = [(3, 48, 6, 8), (2, 96, 5, 7), (4, 384, 4, 6), (2, 7, 3, 5), (3, 192, 6, 4), (2, 576, 4, 4)]
"""Pictures: rows that are read several at once, alone, and with columns that do not fill a block."""
KINDS = list(product([False, True], repeat=3))
"""With a shortcut, with drop-path, with GELU."""


def norms(channels: int, **options: float) -> tuple[nn.BatchNorm2d, nn.BatchNorm2d]:
    """Two batch norms with the same uneven parameters and statistics, float64."""
    one, other = (nn.BatchNorm2d(channels, **options).double() for _ in range(2))
    for tensor in (one.weight, one.bias, one.running_mean):
        assert tensor is not None
        nn.init.normal_(tensor)
    other.load_state_dict(one.state_dict())
    return one, other


def pictures(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Random, off centre, channels last, with gradient."""
    values = torch.randn(shape, dtype=dtype) * 3 + torch.randn(1, shape[1], 1, 1, dtype=dtype) * 5
    return values.to(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize(("shortcut", "drop", "gelu"), KINDS)
@pytest.mark.usefixtures("torch_rng")
def test_values_gradients_and_statistics_are_those_of_torchs_modules(shortcut: bool, drop: bool, gelu: bool) -> None:
    ours, theirs = norms(5, momentum=0.3, eps=1e-3)
    x, added = pictures(3, 5, 4, 6), pictures(3, 5, 4, 6)
    keep = torch.tensor([0.0, 1.25, 1.25], dtype=torch.float64).view(3, 1, 1, 1) if drop else None
    found = norm_act(x, ours, gelu=gelu, shortcut=added if shortcut else None, keep=keep)
    wanted = theirs(x) if keep is None else theirs(x) * keep
    wanted = wanted + added if shortcut else wanted
    wanted = functional.gelu(wanted) if gelu else wanted
    assert torch.allclose(found, wanted, rtol=1e-13, atol=1e-13)
    grad = torch.randn_like(wanted)
    leaves = [x, *([added] if shortcut else [])]
    gradients = torch.autograd.grad(found, [*leaves, *ours.parameters()], grad)
    for one, other in zip(gradients, torch.autograd.grad(wanted, [*leaves, *theirs.parameters()], grad), strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
    for name, buffer in ours.named_buffers():
        assert torch.allclose(buffer.double(), theirs.get_buffer(name).double(), rtol=1e-14, atol=1e-14), name


@pytest.mark.usefixtures("torch_rng")
def test_any_memory_order_gives_the_same() -> None:
    norm, _ = norms(6)
    x = pictures(2, 6, 3, 4)
    assert torch.equal(norm_act(x, norm, gelu=True), norm_act(x.contiguous(), norm, gelu=True))


@pytest.mark.usefixtures("torch_rng")
def test_the_operator_keeps_torchs_rules() -> None:
    x, added = (torch.randn(12, 5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight, bias = (torch.randn(5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    keep = torch.rand(2, dtype=torch.float64)
    moments = torch.ops.hms_dist.norm_moments(x.detach(), weight.detach(), 1e-5)
    torch.library.opcheck(torch.ops.hms_dist.norm_moments.default, (x.detach(), weight.detach(), 1e-5))
    for shortcut, dropped in ((None, None), (added, keep)):
        arguments = (x, weight, bias, *moments, shortcut, dropped, 6, True)
        torch.library.opcheck(torch.ops.hms_dist.norm_act.default, arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("shortcut", "drop", "gelu"), KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
@pytest.mark.usefixtures("torch_rng")
def test_the_kernels_compute_the_plain_arithmetic(
    shape: tuple[int, ...], shortcut: bool, drop: bool, gelu: bool, dtype: torch.dtype, tolerance: float
) -> None:
    from hms_dist.model.tiny_vit import norm_act_kernels

    batch, channels, height, width = shape
    places = height * width
    x, added, grad = (torch.randn(batch * places, channels, device="cuda").add(2).to(dtype) for _ in range(3))
    weight, bias = (torch.randn(channels, device="cuda") for _ in range(2))
    keep = torch.rand(batch, device="cuda").round() * 1.25 if drop else None
    moments = norm_act_kernels.moments(x, 1e-5)
    variance, mean = torch.var_mean(x.double(), dim=0, correction=0)
    given = (x, weight, bias, *moments, added if shortcut else None, keep)
    found = (*moments, norm_act_kernels.apply(*given, places, gelu))
    found += norm_act_kernels.backward(grad, *given, places, gelu)
    exact = [None if tensor is None else tensor.double() for tensor in given]
    exact[3:5] = mean, (variance + 1e-5).rsqrt()
    wanted = (*exact[3:5], plain_apply(*exact, places, gelu))  # type: ignore[arg-type]
    wanted += plain_backward(grad.double(), *exact, places, gelu)  # type: ignore[arg-type]
    names = ("mean", "rstd", "out", "x", "weight", "bias", "shortcut")
    for name, ours, theirs in zip(names, found, wanted, strict=True):
        assert ours.shape == theirs.shape, name
        if theirs.numel():
            assert (ours.double() - theirs).norm() <= tolerance * theirs.norm(), name


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.usefixtures("torch_rng")
def test_the_kernels_sum_many_rows_far_from_zero() -> None:
    """Variance of numbers whose mean is a thousand deviations: it must not vanish in the mean's square."""
    from hms_dist.model.tiny_vit import norm_act_kernels

    x = torch.randn(400_000, 96, device="cuda") + 1000
    mean, rstd = norm_act_kernels.moments(x, 0.0)
    assert torch.allclose(mean.double(), x.double().mean(0), rtol=1e-6)
    assert torch.allclose(rstd.double(), 1 / x.double().std(0, correction=0), rtol=1e-4)
