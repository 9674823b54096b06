"""Both implementations of CRC-32 against zlib's, at all relevant alignments and lengths."""

import zlib

import numpy as np
import pytest

from hms_dist.stream.read import checksum

WAYS = [
    checksum.crc32_by_tables,
    pytest.param(
        checksum.crc32_by_folding,
        marks=pytest.mark.skipif(not checksum.HAS_CARRYLESS_MULTIPLICATION, reason="needs carry-less multiplication"),
    ),
]


@pytest.mark.parametrize("crc32", WAYS)
def test_every_short_length_at_every_alignment(crc32, rng) -> None:
    content = rng.integers(0, 256, 600, dtype=np.uint8)
    for size in range(300):
        start = size % 17
        assert crc32(content[start:].ctypes.data, size) == zlib.crc32(content[start : start + size])


@pytest.mark.parametrize("crc32", WAYS)
def test_long_contents(crc32, rng) -> None:
    for size in rng.integers(1, 500_000, 20):
        content = rng.integers(0, 256, size, dtype=np.uint8)
        assert crc32(content.ctypes.data, int(size)) == zlib.crc32(content)
        content[rng.integers(size)] ^= 1 << rng.integers(8)
        assert crc32(content.ctypes.data, int(size)) == zlib.crc32(content)
