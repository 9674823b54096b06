"""Window attention without padding against timm's with padding, in float64; kernels against the plain arithmetic."""

import math

import pytest
import torch
from timm.models.tiny_vit import Attention
from torch import Tensor
from torch.nn import functional

from hms_dist.model.tiny_vit.window_attention import (
    plain_backward,
    plain_forward,
    window_attention,
    window_biases,
    window_classes,
)
from hms_dist.model.tiny_vit.window_bias import padding_bias, row_difference_bias

GRIDS = [(4, 9, 6), (4, 8, 12), (5, 3, 4), (7, 16, 23), (3, 3, 3)]
"""Window size, height, width: cut on both sides, not at all, smaller than a window, unusual, one whole window."""


def inputs(size: int, height: int, width: int, *, heads: int = 2, dims: int = 16, rows: int = 2) -> tuple[Tensor, ...]:
    """Random qkv, bias table and padding, float64 with gradients."""
    shapes = (rows, height, width, heads, 3, dims), (heads, size * size), (heads, 3, dims)
    return tuple(torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)


def padded(qkv: Tensor, table: Tensor, padding: Tensor, size: int) -> Tensor:
    """Timm's computation: padded windows, a bias for every pair of tokens, attention to and from the padding."""
    batch, height, width = qkv.shape[:3]
    down, across = -(-height // size), -(-width // size)
    grid = padding.expand(batch, down * size, across * size, -1, -1, -1).clone()
    grid[:, :height, :width] = qkv
    windows = grid.unflatten(2, (across, size)).unflatten(1, (down, size)).movedim((1, 3, 5), (1, 2, 3)).flatten(4, 5)
    index = Attention(8, 4, 2, 1, (size, size)).attention_bias_idxs
    query, key, value = windows.unbind(-2)
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=table[:, index])
    whole = out.unflatten(4, (size, size)).movedim((1, 2, 3), (1, 3, 5)).flatten(3, 4).flatten(1, 2)
    return whole[:, :height, :width]


def attended(qkv: Tensor, table: Tensor, padding: Tensor, size: int) -> Tensor:
    """Our computation, for a single block."""
    (biases,) = window_biases(table[None], size, *qkv.shape[1:3])
    return window_attention(qkv, biases, padding)


def distance(found: Tensor, wanted: Tensor) -> float:
    """Relative distance of two tensors, by their norms."""
    return ((found.detach().double() - wanted).norm() / wanted.norm().clamp(min=1e-300)).item()


@pytest.mark.parametrize(("size", "height", "width"), GRIDS)
@pytest.mark.usefixtures("torch_rng")
def test_outputs_and_gradients_are_those_of_padded_windows(size: int, height: int, width: int) -> None:
    leaves = inputs(size, height, width)
    found, wanted = attended(*leaves, size), padded(*leaves, size)
    assert distance(found, wanted) < 5e-15
    grad = torch.randn_like(wanted)
    both = (torch.autograd.grad(out, leaves, grad, allow_unused=True) for out in (found, wanted))
    for name, ours, theirs in zip(("qkv", "table", "padding"), *both, strict=True):
        assert distance(ours, theirs) < 5e-15, name


def test_every_token_is_in_one_class_of_windows(rng) -> None:
    size, height, width = rng.integers(1, [10, 41, 41]).tolist()
    seen = torch.zeros(height, width)
    for part in window_classes(height, width, size):
        for window in range(part.num_down * part.num_across):
            top = part.top + window // part.num_across * size
            left = part.left + window % part.num_across * size
            seen[top : top + part.height, left : left + part.width] += 1
    assert seen.eq(1).all()


@pytest.mark.usefixtures("torch_rng")
def test_a_far_query_keeps_its_padding() -> None:
    """Biases of padding far below all others: in float32 they would underflow, and their gradient be zero."""
    qkv, table, padding = inputs(3, 3, 2, heads=1)
    with torch.no_grad():
        table.copy_(torch.tensor([[0, 0, -300, 0, 0, -300, 0, 0, -300.0]]))
    out = attended(qkv, table, padding, 3)
    assert distance(out, padded(qkv, table, padding, 3)) < 5e-15
    out.sum().backward()
    assert table.grad is not None
    assert table.grad.isfinite().all()


@pytest.mark.usefixtures("torch_rng")
def test_the_operator_keeps_torchs_rules() -> None:
    qkv, table, padding = inputs(4, 5, 6)
    bias = row_difference_bias(table, 4).detach().requires_grad_()
    pad_bias = padding_bias(table, 4, 5, 6).detach().requires_grad_()
    torch.library.opcheck(torch.ops.hms_dist.window_attention.default, (qkv, bias, padding, pad_bias, 4))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dims", [16, 32, 64])
@pytest.mark.parametrize(("size", "height", "width"), [(16, 20, 44), (7, 16, 23), (32, 40, 56), (8, 16, 24), (4, 3, 3)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 5e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("shift", [0.0, -150.0])
@pytest.mark.usefixtures("torch_rng")
def test_the_kernels_compute_the_plain_arithmetic(
    size: int, height: int, width: int, dims: int, dtype: torch.dtype, tolerance: float, shift: float
) -> None:
    """Also with very low scores: masked positions must not contribute."""
    from hms_dist.model.tiny_vit import window_kernels

    qkv, table, padding = (
        tensor.detach().cuda().to(dtype) for tensor in inputs(size, height, width, heads=3, dims=dims)
    )
    table = (table + shift).float()
    tolerance *= 1 + abs(shift) / 10  # a score's last bits are larger then
    bias, pad_bias = row_difference_bias(table, size), padding_bias(table, size, height, width).float()
    out, lse = window_kernels.forward(qkv, bias, padding, pad_bias, size)
    grad = torch.randn_like(out)
    found = (out, lse, *window_kernels.backward(grad, qkv, bias, padding, pad_bias, out, lse, size))
    rounded = (bias * math.log2(math.e)).to(dtype).double() / math.log2(math.e)  # as the kernels read it
    exact = [qkv.double(), rounded, padding.double(), pad_bias.double()]
    outputs = plain_forward(*exact, size)
    wanted = (*outputs, *plain_backward(grad.double(), *exact, *outputs, size))
    for name, ours, theirs in zip(("out", "lse", "qkv", "bias", "padding", "pad_bias"), found, wanted, strict=True):
        if theirs.norm() > 0:
            assert distance(ours, theirs) < tolerance, name
        else:
            assert not ours.any(), name
