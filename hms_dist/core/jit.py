"""Loops over arrays compiled by numba when they are first called, with a cache on disk.

Files of compiled code that were cut short or changed are compiled again: each carries the SHA-256 of its bytes.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from hms_dist.core.files import sealed_bytes, unsealed_bytes
from hms_dist.core.logging import LOG

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a self-contained function of arrays and numbers: machine code, without the GIL.

    numba is imported and the code compiled (or loaded from numba's cache on disk) at the first call, so that
    importing the module stays cheap. Floating-point operations keep their order: results are those of numpy.
    """
    return _compiled_at_first_call(function, any_order=False)


def jit_any_order(function: Callable[P, R]) -> Callable[P, R]:
    """As `jit`, but sums are taken in any order, many terms at a time, and a product's sum is rounded once: the
    last digits differ from numpy's, and from one family of processors to another.
    """
    return _compiled_at_first_call(function, any_order=True)


def _compiled_at_first_call(function: Callable[P, R], *, any_order: bool) -> Callable[P, R]:
    @cache
    def kernel() -> Any:
        return compile_function(function, fastmath={"reassoc", "nsz", "contract"} if any_order else False)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        result: R = kernel()(*args, **kwargs)
        return result

    return call


def compile_function(function: Callable[P, R], *, nogil: bool = True, **options: Any) -> Callable[P, R]:
    """`function` compiled by numba. Where no folder can be written, its code is not kept.

    `nogil`: it runs without the GIL. What takes microseconds should keep it: beside a busy Python, getting it back
    takes 5 ms. `options` are numba's.
    """
    from numba import njit

    try:
        dispatcher = njit(cache=True, nogil=nogil, **options)(function)
    except RuntimeError as error:
        if not str(error).startswith("cannot cache"):
            raise
        _say_that_nothing_is_kept()
        uncached: Callable[P, R] = njit(nogil=nogil, **options)(function)
        return uncached
    kept = dispatcher._cache._cache_file
    dispatcher._cache._cache_file = _checked_file()(
        kept._cache_path, kept._index_name.removesuffix(".nbi"), kept._source_stamp
    )
    compiled: Callable[P, R] = dispatcher
    return compiled


@cache
def _say_that_nothing_is_kept() -> None:
    LOG.warning(
        "no folder for compiled code can be written, so every process compiles it again (a few seconds); set "
        "NUMBA_CACHE_DIR to one that can"
    )


@cache
def _checked_file() -> Any:
    """numba's pair of cache files of a function (index, code), each followed by the SHA-256 of its bytes.

    numba unpickles these files, and runs the code in them, unchecked: a flipped bit ends in any exception in whatever
    called the function, or in wrong results. numba has no option for this, so the class that reads and writes them is
    extended. Unpickling ignores what follows.
    """
    from numba.core.caching import IndexDataCacheFile

    class CheckedFile(IndexDataCacheFile):  # type: ignore[misc]
        @contextmanager
        def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
            content = io.BytesIO()
            yield content
            with super()._open_for_write(filepath) as file:
                file.write(sealed_bytes(content.getvalue()))

        def _load_index(self) -> Any:
            return super()._load_index() if _is_whole(Path(self._index_path)) else {}

        def _load_data(self, name: str) -> Any:
            if not _is_whole(Path(self._data_path(name))):
                raise FileNotFoundError(name)  # numba compiles the function then
            return super()._load_data(name)

    return CheckedFile


def _is_whole(path: Path) -> bool:
    """Whether a cache file ends with its own digest; False, with a warning, for a damaged one."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    if unsealed_bytes(content) is not None:
        return True
    _say_that_code_is_damaged(path.parent)
    return False


@cache
def _say_that_code_is_damaged(folder: Path) -> None:
    LOG.warning("%s: compiled code there is damaged, or of another version of this package; compiling it again", folder)
