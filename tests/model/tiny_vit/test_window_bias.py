"""Biases of windows against the table expanded to all pairs."""

import itertools

import pytest
import torch
from torch import Tensor

from hms_dist.model.tiny_vit.window_bias import padding_bias, row_difference_bias


def pair_bias(table: Tensor, size: int, one: tuple[int, int], other: tuple[int, int]) -> Tensor:
    """The definition: a value for each distance in rows and columns, row-major."""
    return table[:, abs(one[0] - other[0]) * size + abs(one[1] - other[1])]


@pytest.mark.parametrize("size", [1, 3, 6])
@pytest.mark.usefixtures("torch_rng")
def test_a_square_of_columns_for_each_row_difference(size: int) -> None:
    table = torch.randn(2, size * size, dtype=torch.float64)
    squares = row_difference_bias(table, size).unflatten(2, (size, size))
    assert squares.shape == (2, 2 * size - 1, size, size)
    for d, a, b in itertools.product(range(1 - size, size), range(size), range(size)):
        assert torch.equal(squares[:, d + size - 1, a, b], pair_bias(table, size, (0, a), (d, b)))


@pytest.mark.parametrize("spread", [1.0, 300.0])
@pytest.mark.parametrize(("size", "height", "width"), [(4, 9, 6), (4, 4, 7), (5, 2, 5), (3, 1, 1)])
@pytest.mark.usefixtures("torch_rng")
def test_padding_is_one_key_with_the_log_of_the_sum(size: int, height: int, width: int, spread: float) -> None:
    table = (spread * torch.randn(2, size * size, dtype=torch.float64)).clamp(-350, 350)  # exp(-700) is above 0
    found = padding_bias(table, size, height, width)
    assert found.shape == (2, height, width)
    for row, column in itertools.product(range(height), range(width)):
        top, left = row // size * size, column // size * size
        window = itertools.product(range(top, top + size), range(left, left + size))
        padded = [
            pair_bias(table, size, (row, column), place) for place in window if place[0] >= height or place[1] >= width
        ]
        wanted = torch.stack(padded).logsumexp(0) if padded else torch.full((2,), -torch.inf, dtype=torch.float64)
        torch.testing.assert_close(found[:, row, column], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("torch_rng")
def test_gradients_are_finite_beside_windows_without_padding(rng) -> None:
    table = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    grid = padding_bias(table, 4, int(rng.integers(5, 8)), 9)
    assert grid.isinf().any()
    grid[grid.isfinite()].sum().backward()
    assert table.grad is not None
    assert table.grad.isfinite().all()
    assert torch.autograd.gradcheck(lambda t: padding_bias(t, 4, 3, 6), table)
