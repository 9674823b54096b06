"""Access to memory addresses in compiled loops. Importing this module imports numba."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from hms_dist.core.jit import compile_function


@intrinsic  # type: ignore[untyped-decorator]
def _bytes_pointer(typing_context: Any, address: Any) -> Any:
    """Convert an integer to a pointer to bytes."""
    del typing_context, address
    return types.CPointer(types.uint8)(types.intp), _cast(8)


@intrinsic  # type: ignore[untyped-decorator]
def _words_pointer(typing_context: Any, address: Any) -> Any:
    """Convert an integer to a pointer to 64-bit words."""
    del typing_context, address
    return types.CPointer(types.int64)(types.intp), _cast(64)


def _cast(num_bits: int) -> Callable[..., Any]:
    def code(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        del context, signature
        return builder.inttoptr(arguments[0], ir.IntType(num_bits).as_pointer())

    return code


@compile_function
def bytes_at(address: int, size: int) -> Any:
    """Return the `size` bytes at `address` as a uint8 array, without a copy."""
    return carray(_bytes_pointer(address), size)


@compile_function
def words_at(address: int, size: int) -> Any:
    """Return the `size` words at `address` as an int64 array, without a copy."""
    return carray(_words_pointer(address), size)
