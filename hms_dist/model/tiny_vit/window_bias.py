"""TinyViT's relative-position biases without one entry a pair of tokens: by row difference, and padding summed up.

A window is a square of `size` x `size` tokens. Its bias table (heads, size^2) holds one number for each distance
(|rows|, |columns|) between two tokens, distances in row-major order. Written out, that is (size^2)^2 numbers a
head. What attention needs here is less: the bias of a pair depends on its rows only through their difference, so
`by_rows` writes out 2 size - 1 squares of columns; and all padded keys of a window have one key and value
vector, so `of_padding` gives each query one bias for all of them together.

Both are products with constant matrices of counts, so that their gradients are products too, not scatters.
"""

import torch
from torch import Tensor
from torch.nn import functional


def by_rows(table: Tensor, size: int) -> Tensor:
    """Bias of column pairs for each row difference, (heads, 2 size - 1, size^2), of `table` (heads, size^2).

    Entry [h, d, a size + b] is the bias between two tokens d - (size - 1) rows apart, in columns a and b.
    """
    squares = torch.unflatten(table, 1, (size, size))
    columns = squares @ _column_pairs(size, squares)
    return torch.cat([columns[:, 1:].flip(1), columns], dim=1)


def of_padding(table: Tensor, size: int, height: int, width: int) -> Tensor:
    """Bias of each token towards all padded keys of its window as one key, float64 (heads, height, width).

    A grid of height x width tokens is cut into windows from its top left corner; the last row and column of
    windows is filled up with padding. k padded keys with biases b_1..b_k and one and the same vector take part in
    a softmax as one key with the bias ln(sum exp b_i). It is -inf where the window has no padding.
    Float64, because a query may be far from all its padding: exp(b - max b) must not vanish.
    """
    rows, columns = _axis(size, height, table), _axis(size, width, table)
    table = torch.unflatten(table.double(), 1, (size, size))
    top = table.detach().amax(dim=(1, 2), keepdim=True)
    weights = (table - top).exp()
    real_rows, padded_rows = _counts(rows, size), _counts(rows, size, padded=True)
    real_columns, padded_columns = _counts(columns, size), _counts(columns, size, padded=True)
    below = padded_rows @ weights @ (real_columns + padded_columns).T
    beside = real_rows @ weights @ padded_columns.T
    total = below + beside
    padded = total > 0
    return torch.where(padded, torch.where(padded, total, 1).log() + top, -torch.inf)


def _column_pairs(size: int, like: Tensor) -> Tensor:
    """One-hot distances of column pairs, (size, size^2)."""
    column = torch.arange(size, device=like.device)
    distance = (column[:, None] - column).abs().flatten()
    return functional.one_hot(distance, size).T.to(like.dtype)


def _axis(size: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """For each token along one axis: its place within its window, and how many real places that window has."""
    position = torch.arange(length, device=like.device)
    real = (length - position // size * size).clamp(max=size)
    return position % size, real


def _counts(axis: tuple[Tensor, Tensor], size: int, padded: bool = False) -> Tensor:
    """How many real (or padded) places of its window are at each distance of a token, float64 (tokens, size)."""
    place, real = axis
    other = torch.arange(size, device=place.device)
    wanted = (other >= real[:, None]) if padded else (other < real[:, None])
    distance = functional.one_hot((place[:, None] - other).abs(), size)
    return (distance * wanted[..., None]).sum(dim=1).double()
