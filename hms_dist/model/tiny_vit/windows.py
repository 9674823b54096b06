"""The windows of a grid of tokens, grouped by shape: those at the right and bottom edges may be cut."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class WindowClass:
    """Windows of one shape, which lie `size` tokens apart from each other in both directions."""

    top: int
    left: int
    num_down: int
    num_across: int
    height: int
    """Rows of real tokens of each window."""
    width: int


def window_classes(height: int, width: int, size: int) -> Iterator[WindowClass]:
    """The windows of a grid by their shape: whole ones, those cut at the right, at the bottom, in the corner."""
    for top, num_down, rows in _parts(height, size):
        for left, num_across, columns in _parts(width, size):
            yield WindowClass(top, left, num_down, num_across, rows, columns)


def _parts(length: int, size: int) -> Iterator[tuple[int, int, int]]:
    whole, rest = divmod(length, size)
    if whole:
        yield 0, whole, size
    if rest:
        yield whole * size, 1, rest
