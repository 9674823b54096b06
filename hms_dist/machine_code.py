"""Loops over arrays as machine code, made by numba when they are first called and kept on the disk."""

from collections.abc import Callable
from functools import cache
from typing import Any, ParamSpec, TypeVar

from hms_dist.run import LOG

P = ParamSpec("P")
R = TypeVar("R")


def machine_code(function: Callable[P, R], *, nogil: bool = True, **options: Any) -> Callable[P, R]:
    """`function` compiled by numba. Where no folder can be written, its code is not kept.

    `nogil`: it runs without the GIL. What takes microseconds should keep it: beside a busy Python, getting it back
    takes 5 ms. `options` are numba's.
    """
    from numba import njit

    try:
        compiled: Callable[P, R] = njit(cache=True, nogil=nogil, **options)(function)
    except RuntimeError as error:
        if not str(error).startswith("cannot cache"):
            raise
        _say_that_nothing_is_kept()
        compiled = njit(nogil=nogil, **options)(function)
    return compiled


@cache
def _say_that_nothing_is_kept() -> None:
    LOG.warning(
        "no folder for compiled code can be written, so every process compiles it again (a few seconds); set "
        "NUMBA_CACHE_DIR to one that can"
    )
