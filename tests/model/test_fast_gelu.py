"""The GELU operator against torch's GELU: values, gradients, registration."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hms_dist.model import gpus
from hms_dist.model.fast_gelu import FastGelu


@pytest.mark.usefixtures("torch_rng")
def test_the_operator_keeps_torchs_rules() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(torch.ops.hms_dist.gelu.default, (x,))


@pytest.mark.usefixtures("torch_rng")
@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_values_and_gradients_are_those_of_torchs_module(approximate: str, monkeypatch) -> None:
    monkeypatch.setattr(gpus, "is_for", lambda *_: True)
    x = torch.randn(4, 7, 6, dtype=torch.float64).transpose(1, 2).requires_grad_()
    grad = torch.randn_like(x)
    found, wanted = FastGelu(approximate)(x), nn.GELU(approximate)(x)
    assert torch.allclose(found, wanted, rtol=1e-13, atol=1e-15)
    for one, other in zip(torch.autograd.grad(found, x, grad), torch.autograd.grad(wanted, x, grad), strict=True):
        assert torch.allclose(one, other, rtol=1e-13, atol=1e-15)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.usefixtures("torch_rng")
@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 2e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)])
@pytest.mark.parametrize("length", [1, 2047, 2048 * 8 + 3, 100_000])
def test_the_kernels_compute_it(dtype: torch.dtype, largest: float, length: int) -> None:
    x = (4 * torch.randn(length)).to(dtype)
    grad = torch.randn(length).to(dtype)
    exact = x.double().requires_grad_()
    wanted = functional.gelu(exact)
    (slope,) = torch.autograd.grad(wanted, exact, grad.double())
    ours = x.cuda().requires_grad_()
    found = FastGelu()(ours)
    (d_x,) = torch.autograd.grad(found, ours, grad.cuda())
    for one, other in ((found, wanted), (d_x, slope)):
        assert one.dtype == dtype
        assert ((one.cpu().double() - other).abs() <= largest * (1 + other.abs())).all()
