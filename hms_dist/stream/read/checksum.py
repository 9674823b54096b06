"""CRC-32 in compiled loops, without the GIL: by carry-less multiplication if the processor has it, else by tables.

Both give the same value as zlib. The folding is that of Gopal and others, "Fast CRC Computation for Generic Polynomials
Using PCLMULQDQ Instruction" (Intel, 2009), with its constants computed here. Importing this module imports numba.
"""

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hms_dist.core.jit import compile_function
from hms_dist.stream.read.addresses import bytes_at

_POLYNOMIAL = 0x104C11DB7
_ALL_ONES = np.uint64(0xFFFFFFFF)
_BYTE, _EIGHT = np.uint64(255), np.uint64(8)
FOLDED_BYTES = 64
"""Number of bytes that one round of folding processes."""
HAS_CARRYLESS_MULTIPLICATION = bool(binding.get_host_cpu_features().get("pclmul", False))
"""Whether this processor has carry-less multiplication (x86 processors since 2010)."""


def _fold_constant(num_bits: int) -> int:
    """x^num_bits modulo the polynomial, with bits reversed, as the multiplication of reversed operands needs it."""
    remainder = 1
    for _ in range(num_bits):
        remainder <<= 1
        if remainder >> 32:
            remainder ^= _POLYNOMIAL
    return int(f"{remainder:032b}"[::-1], 2) << 1


def _tables() -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Contribution of a byte to the CRC when 0 to 15 more bytes follow it: [16, 256]."""
    tables = np.zeros((16, 256), np.uint64)
    reversed_polynomial = int(f"{_POLYNOMIAL & 0xFFFFFFFF:032b}"[::-1], 2)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (reversed_polynomial if value & 1 else 0)
        tables[0, byte] = value
    for more in range(1, 16):
        tables[more] = (tables[more - 1] >> _EIGHT) ^ tables[0, tables[more - 1] & _BYTE]
    return tables


_TABLES = _tables()
_VECTOR = ir.VectorType(ir.IntType(64), 2)
_FAR = (_fold_constant(4 * 128 + 32), _fold_constant(4 * 128 - 32))
_NEAR = (_fold_constant(128 + 32), _fold_constant(128 - 32))


@intrinsic  # type: ignore[untyped-decorator]
def _fold(typing_context: Any, address: Any, num_rounds: Any, crc: Any, remainder: Any) -> Any:
    """Fold `num_rounds` (at least 1) x 64 bytes from `address`, starting with `crc`, into 16 bytes at `remainder`."""
    del typing_context, address, num_rounds, crc, remainder
    return types.void(types.intp, types.intp, types.uint64, types.intp), _folding_code


def _folding_code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    del signature
    address, num_rounds, crc, remainder = arguments
    word, lane = ir.IntType(64), ir.IntType(8)
    multiply = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_VECTOR, [_VECTOR, _VECTOR, lane]), "llvm.x86.pclmulqdq"
    )

    def folded(value: Any, constants: Any, added: Any) -> Any:
        low, high = (builder.call(multiply, [value, constants, lane(halves)]) for halves in (0x00, 0x11))
        return builder.xor(builder.xor(low, high), added)

    def block(number: Any) -> list[Any]:
        start = builder.add(address, builder.mul(number, word(FOLDED_BYTES)))
        places = (builder.inttoptr(builder.add(start, word(16 * i)), _VECTOR.as_pointer()) for i in range(4))
        return [builder.load(place, align=1) for place in places]

    first = block(word(0))
    first[0] = builder.xor(first[0], builder.insert_element(ir.Constant(_VECTOR, [0, 0]), crc, ir.IntType(32)(0)))
    before, loop, body, after = builder.block, *(builder.append_basic_block(name) for name in ("loop", "body", "after"))
    builder.branch(loop)
    builder.position_at_end(loop)
    number, sums = builder.phi(word), [builder.phi(_VECTOR) for _ in first]
    builder.cbranch(builder.icmp_signed("<", number, num_rounds), body, after)
    builder.position_at_end(body)
    added = [folded(value, ir.Constant(_VECTOR, _FAR), read) for value, read in zip(sums, block(number), strict=True)]
    following = builder.add(number, word(1))
    builder.branch(loop)
    for phi, begun, next_value in zip([number, *sums], [word(1), *first], [following, *added], strict=True):
        phi.add_incoming(begun, before)
        phi.add_incoming(next_value, body)
    builder.position_at_end(after)
    result = sums[0]
    for value in sums[1:]:
        result = folded(result, ir.Constant(_VECTOR, _NEAR), value)
    builder.store(result, builder.inttoptr(remainder, _VECTOR.as_pointer()), align=1)
    return context.get_dummy_value()


@compile_function
def _by_tables(crc: np.uint64, address: int, size: int) -> np.uint64:
    """Continue a CRC: sixteen bytes at a time, then one by one."""
    content = bytes_at(address, size)
    whole = size // 16 * 16
    for start in range(0, whole, 16):
        following = np.uint64(0)
        for i in range(4):
            following ^= _TABLES[15 - i, np.uint64(content[start + i]) ^ ((crc >> np.uint64(8 * i)) & _BYTE)]
        for i in range(4, 16):
            following ^= _TABLES[15 - i, content[start + i]]
        crc = following
    for place in range(whole, size):
        crc = (crc >> _EIGHT) ^ _TABLES[0, (crc ^ np.uint64(content[place])) & _BYTE]
    return crc


@compile_function
def _by_folding(crc: np.uint64, address: int, size: int) -> np.uint64:
    """Continue a CRC: 64 bytes at a time, then the rest by tables."""
    num_rounds = size // FOLDED_BYTES
    if num_rounds:
        remainder = np.empty(16, np.uint8)
        _fold(address, num_rounds, crc, remainder.ctypes.data)
        crc = _by_tables(np.uint64(0), remainder.ctypes.data, 16)
    done = num_rounds * FOLDED_BYTES
    return _by_tables(crc, address + done, size - done)


@compile_function
def crc32_by_tables(address: int, size: int) -> np.uint64:
    """Compute the CRC-32 of `size` bytes at `address`, on any processor."""
    return _by_tables(_ALL_ONES, address, size) ^ _ALL_ONES


@compile_function
def crc32_by_folding(address: int, size: int) -> np.uint64:
    """Compute the CRC-32 of `size` bytes at `address`; needs HAS_CARRYLESS_MULTIPLICATION."""
    return _by_folding(_ALL_ONES, address, size) ^ _ALL_ONES


crc32_at = crc32_by_folding if HAS_CARRYLESS_MULTIPLICATION else crc32_by_tables
"""The faster of the two on this processor."""
_continue = _by_folding if HAS_CARRYLESS_MULTIPLICATION else _by_tables


@compile_function
def crc32_of_two(address: int, size: int, next_address: int, next_size: int) -> np.uint64:
    """Compute the CRC-32 of two byte ranges joined together."""
    return _continue(_continue(_ALL_ONES, address, size), next_address, next_size) ^ _ALL_ONES
