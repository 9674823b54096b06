"""A 32-bit integer hash in array operations that NumPy, torch and its compiler share, exact on every device."""

from typing import Any, TypeVar

Words = TypeVar("Words", bound=Any)


def mixed(words: Words) -> Words:
    """Apply a bijection of int32 that scatters every bit: two rounds of multiply and shift (Wellons 2018, lowbias32).

    `words` has any shape; the result is of the same shape. Products wrap around, as those of int32 arrays do.
    """
    words = words ^ ((words >> 16) & 0xFFFF)
    words = words * 0x7FEB352D
    words = words ^ ((words >> 15) & 0x1FFFF)
    words = words * (0x846CA68B - 2**32)
    return words ^ ((words >> 16) & 0xFFFF)
