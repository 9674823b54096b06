"""Norm, GELU and convolution as one operator against torch's own modules: values, gradients, statistics, memory."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hms_dist.model.tiny_vit.norm_conv import norm_conv

CONVOLUTIONS = [
    {"out_channels": 5, "kernel_size": 1},
    {"out_channels": 8, "kernel_size": 3, "padding": 1},
    {"out_channels": 8, "kernel_size": 3, "padding": 1, "stride": 2},
    {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4},
    {"out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2, "groups": 4},
]
"""TinyViT's kinds: 1 x 1, the stem's, and one channel at a time."""


def parts(options: dict[str, int]) -> tuple[nn.BatchNorm2d, nn.Conv2d]:
    """An uneven norm of four channels and a convolution behind it."""
    norm, conv = nn.BatchNorm2d(4, momentum=0.3).double(), nn.Conv2d(4, bias=False, **options).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, conv


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.usefixtures("torch_rng")
def test_values_gradients_and_statistics_are_those_of_torchs_modules(options: dict[str, int]) -> None:
    norm, conv = parts(options)
    other = nn.BatchNorm2d(4, momentum=0.3).double()
    other.load_state_dict(norm.state_dict())
    x = torch.randn(2, 4, 7, 10, dtype=torch.float64, requires_grad=True)
    found, wanted = norm_conv(x, norm, conv), conv(functional.gelu(other(x)))
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(wanted)
    gradients = torch.autograd.grad(found, [x, *norm.parameters(), conv.weight], grad)
    expected = torch.autograd.grad(wanted, [x, *other.parameters(), conv.weight], grad)
    for one, another in zip(gradients, expected, strict=True):
        assert torch.allclose(one, another, rtol=1e-11, atol=1e-12)
    for name, buffer in norm.named_buffers():
        assert torch.allclose(buffer.double(), other.get_buffer(name).double(), rtol=1e-14, atol=1e-14), name


@pytest.mark.usefixtures("torch_rng")
def test_what_the_convolution_reads_is_not_kept() -> None:
    norm, conv = parts(CONVOLUTIONS[1])
    x = torch.randn(2, 4, 40, 50, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        norm_conv(x, norm, conv)
    assert kept
    assert sum(kept) < 0.1 * x.nbytes


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.usefixtures("torch_rng")
def test_the_operator_keeps_torchs_rules(options: dict[str, int]) -> None:
    norm, conv = parts(options)
    rows = torch.randn(2 * 5 * 6, 4, dtype=torch.float64, requires_grad=True)
    mean, rstd = torch.ops.hms_dist.norm_moments(rows.detach(), norm.weight.detach(), 1e-5)
    arguments = (rows, norm.weight, norm.bias, mean, rstd, conv.weight, 5, 6, conv.stride[0], conv.groups)
    torch.library.opcheck(torch.ops.hms_dist.norm_conv.default, arguments)
