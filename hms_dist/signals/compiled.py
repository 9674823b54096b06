"""Loops over samples, compiled by numba when they are first called."""

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from hms_dist.machine_code import machine_code

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a self-contained function of arrays and numbers: machine code, without the GIL.

    numba is imported and the code compiled (or loaded from numba's cache on disk) at the first call, so that
    importing the module stays cheap. Floating-point operations keep their order: results are those of numpy.
    """
    return _compiled_when_called(function, any_order=False)


def compiled_any_order(function: Callable[P, R]) -> Callable[P, R]:
    """As `compiled`, but sums are taken in any order, many terms at a time, and a product's sum is rounded once: the
    last digits differ from numpy's, and from one family of processors to another.
    """
    return _compiled_when_called(function, any_order=True)


def _compiled_when_called(function: Callable[P, R], *, any_order: bool) -> Callable[P, R]:
    @cache
    def kernel() -> Any:
        return machine_code(function, fastmath={"reassoc", "nsz", "contract"} if any_order else False)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = kernel()(*args, **kwargs)
        return result

    return call
