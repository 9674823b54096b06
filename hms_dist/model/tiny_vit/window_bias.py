"""TinyViT's relative-position biases in a compact form: by difference of rows, and summed over the padding.

A window is a square of `size` x `size` tokens. Its bias table (heads, size^2) has one value for each distance (|rows|,
|columns|) between two tokens, in row-major order; all pairs of tokens would be (size^2)^2 values for each head.
Attention needs fewer: the bias of a pair depends on its rows only by their difference, so `row_difference_bias` expands
the table to 2 size - 1 squares of columns. All padded keys of a window have the same key and value, so `padding_bias`
computes one bias of each query for all of them.

Both are products with constant matrices, so their gradients are products as well, without scatters.
"""

import torch
from torch import Tensor
from torch.nn import functional


def row_difference_bias(table: Tensor, size: int) -> Tensor:
    """Expand `table` (heads, size^2) to pairs of columns for each difference of rows: (heads, 2 size - 1, size^2).

    Any float dtype. Entry [h, d, a size + b] is the bias of two tokens with a row difference of d - (size - 1), in
    columns a and b.
    """
    squares = torch.unflatten(table, 1, (size, size))
    columns = squares @ _column_pairs(size, squares)
    return torch.cat([columns[:, 1:].flip(1), columns], dim=1)


def padding_bias(table: Tensor, size: int, height: int, width: int) -> Tensor:
    """Compute the bias of each token to all padded keys of its window as one key: float64 (heads, height, width).

    A grid of height x width tokens is divided into windows from its top left corner; the last row and column of windows
    are padded. In a softmax, k padded keys with the same key vector and biases b_1..b_k are equivalent to one key with
    bias ln(sum exp b_i); it is -inf for a window without padding. Float64, because a query may be far from all padding,
    and exp(b - max b) must not underflow.
    """
    rows, columns = _axis(size, height, table), _axis(size, width, table)
    table = torch.unflatten(table.double(), 1, (size, size))
    top = table.detach().amax(dim=(1, 2), keepdim=True)
    weights = (table - top).exp()
    token_rows, padded_rows = _counts(rows, size), _counts(rows, size, padded=True)
    token_columns, padded_columns = _counts(columns, size), _counts(columns, size, padded=True)
    below = padded_rows @ weights @ (token_columns + padded_columns).T
    beside = token_rows @ weights @ padded_columns.T
    total = below + beside
    padded = total > 0
    return torch.where(padded, torch.where(padded, total, 1).log() + top, -torch.inf)


def _column_pairs(size: int, like: Tensor) -> Tensor:
    """One-hot distances of pairs of columns, (size, size^2)."""
    column = torch.arange(size, device=like.device)
    distance = (column[:, None] - column).abs().flatten()
    return functional.one_hot(distance, size).T.to(like.dtype)


def _axis(size: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each token along one axis: its position in its window, and the number of tokens of that window."""
    position = torch.arange(length, device=like.device)
    num_tokens = (length - position // size * size).clamp(max=size)
    return position % size, num_tokens


def _counts(axis: tuple[Tensor, Tensor], size: int, padded: bool = False) -> Tensor:
    """Count the tokens (or padded positions) of a token's window at each distance: float64 (tokens, size)."""
    position, num_tokens = axis
    other = torch.arange(size, device=position.device)
    wanted = (other >= num_tokens[:, None]) if padded else (other < num_tokens[:, None])
    distance = functional.one_hot((position[:, None] - other).abs(), size)
    return (distance * wanted[..., None]).sum(dim=1).double()
