"""The windows of a grid of tokens, grouped by shape; windows at the right and bottom edges may be smaller."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowClass:
    """Windows of one shape; their distance is `size` tokens in both directions."""

    top: int
    left: int
    num_down: int
    num_across: int
    height: int
    """Rows of tokens in each window."""
    width: int


def window_classes(height: int, width: int, size: int) -> Iterator[WindowClass]:
    """Yield the windows of a grid of `height` x `width` tokens by shape: whole windows, then those cut at the right,
    the bottom and the corner."""
    for top, num_down, rows in _parts(height, size):
        for left, num_across, columns in _parts(width, size):
            yield WindowClass(top, left, num_down, num_across, rows, columns)


def _parts(length: int, size: int) -> Iterator[tuple[int, int, int]]:
    whole, rest = divmod(length, size)
    if whole:
        yield 0, whole, size
    if rest:
        yield whole * size, 1, rest
