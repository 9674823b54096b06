"""norm_conv (norm by groups, GELU, convolution) against torch's modules: values, gradients, statistics."""

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms
from hms_dist.model.pass_rows import PassRows, Pieces, draw_words, whole_groups
from hms_dist.model.tiny_vit.norm_conv import norm_conv

CONVOLUTIONS = [
    {"out_channels": 5, "kernel_size": 1},
    {"out_channels": 8, "kernel_size": 3, "padding": 1},
    {"out_channels": 8, "kernel_size": 3, "padding": 1, "stride": 2},
    {"out_channels": 4, "kernel_size": 3, "padding": 1, "groups": 4},
    {"out_channels": 4, "kernel_size": 3, "padding": 1, "stride": 2, "groups": 4},
]
"""TinyViT's kinds: 1 x 1, the stem's, and one channel at a time."""


def parts(
    options: dict[str, int], groups: Pieces
) -> tuple[GroupBatchNorm, nn.BatchNorm2d, nn.Conv2d, PassRows, GroupNorms]:
    """A norm by groups of four channels, torch's norm with the same random parameters, a convolution; a pass has
    begun."""
    plain, conv = nn.BatchNorm2d(4, momentum=0.3).double(), nn.Conv2d(4, bias=False, **options).double()
    nn.init.normal_(plain.weight)
    nn.init.normal_(plain.bias)
    rows = PassRows(torch.device("cpu"))
    ours = GroupBatchNorm(nn.BatchNorm2d(4, momentum=0.3).double(), rows)
    ours.load_state_dict(plain.state_dict())
    rows.begin(groups, draw_words(0, 0, 0, range(groups.num_rows)))
    norms = GroupNorms(ours, rows)
    norms.begin_step()
    norms.begin_pass()
    return ours, plain, conv, rows, norms


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize(("num_groups", "group_size"), [(1, 2), (3, 2), (2, 1)])
@pytest.mark.usefixtures("torch_rng")
def test_values_gradients_and_statistics_are_those_of_torchs_modules(
    options: dict[str, int], num_groups: int, group_size: int
) -> None:
    norm, other, conv, rows, norms = parts(options, whole_groups(num_groups, group_size))
    x = torch.randn(num_groups * group_size, 4, 7, 10, dtype=torch.float64)
    x = (x + torch.randn(len(x), 4, 1, 1, dtype=torch.float64)).requires_grad_()  # groups unlike each other
    found = norm_conv(x, norm, conv, rows)
    after = [{name: buffer.clone() for name, buffer in other.named_buffers()} for _ in range(num_groups)]
    normalised = [functional_call(other, *of_group) for of_group in zip(after, x.split(group_size), strict=True)]
    wanted = conv(functional.gelu(torch.cat(normalised)))
    assert torch.allclose(found, wanted, rtol=1e-12, atol=1e-12)
    grad = torch.randn_like(wanted)
    gradients = torch.autograd.grad(found, [x, *norm.parameters(), conv.weight], grad)
    expected = torch.autograd.grad(wanted, [x, *other.parameters(), conv.weight], grad)
    for one, another in zip(gradients, expected, strict=True):
        assert torch.allclose(one, another, rtol=1e-11, atol=1e-12)
    norms.after_pass()
    norms.end_step(num_groups)
    for name, buffer in norm.named_buffers():  # they move to the mean over the groups, once
        mean = torch.stack([of_group[name].double() for of_group in after]).mean(0)
        assert torch.allclose(buffer.double(), mean, rtol=1e-14, atol=1e-14), name


@pytest.mark.usefixtures("torch_rng")
def test_what_the_convolution_reads_is_not_kept() -> None:
    norm, _, conv, rows, _ = parts(CONVOLUTIONS[1], whole_groups(1, 2))
    x = torch.randn(2, 4, 40, 50, dtype=torch.float64).to(memory_format=torch.channels_last).requires_grad_()
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() != x.untyped_storage().data_ptr():
            kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        norm_conv(x, norm, conv, rows)
    assert kept
    assert sum(kept) < 0.1 * x.nbytes


@pytest.mark.parametrize("options", CONVOLUTIONS)
@pytest.mark.parametrize("slots", [False, True])
@pytest.mark.usefixtures("torch_rng")
def test_the_operator_keeps_torchs_rules(options: dict[str, int], slots: bool) -> None:
    norm, _, conv, _, _ = parts(options, whole_groups(2, 1))
    x = torch.randn(2 * 5 * 6, 4, dtype=torch.float64, requires_grad=True)
    starts, piece = torch.tensor([0, 1, 2], dtype=torch.int32), torch.tensor([0, 1], dtype=torch.int32)
    layout = (starts, piece, torch.arange(2) if slots else None, 2 if slots else 0, 1, 5 * 6)
    mean, rstd, _ = torch.ops.hms_dist.norm_moments(x.detach(), norm.weight.detach(), 1e-5, *layout).unbind()
    arguments = (x, norm.weight, norm.bias, mean, rstd, conv.weight, *layout, 5, 6, conv.stride[0], conv.groups)
    torch.library.opcheck(torch.ops.hms_dist.norm_conv.default, arguments)
