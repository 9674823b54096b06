"""Numba functions that are compiled at their first call and cached on disk.

Each cache file carries the SHA-256 of its content; damaged files are recompiled.
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
    """Compile a self-contained function of arrays and numbers at its first call, without the GIL.

    numba is imported and the code compiled (or loaded from numba's cache) at the first call, so importing the module
    stays cheap. Floating-point operations keep their order: results equal numpy's.
    """
    return _compiled_at_first_call(function, any_order=False)


def jit_any_order(function: Callable[P, R]) -> Callable[P, R]:
    """Like `jit`, with reordered sums and fused multiply-add (fastmath): the last digits differ from numpy's and
    between processor families."""
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
    """Compile `function` with numba, without a cache if no folder is writable.

    `nogil`: release the GIL while it runs. Functions of a few microseconds should keep it, because reacquiring it next
    to a busy Python thread takes 5 ms. `options` are numba's.
    """
    from numba import njit

    try:
        dispatcher = njit(cache=True, nogil=nogil, **options)(function)
    except RuntimeError as error:
        if not str(error).startswith("cannot cache"):
            raise
        _warn_no_cache_folder()
        uncached: Callable[P, R] = njit(nogil=nogil, **options)(function)
        return uncached
    kept = dispatcher._cache._cache_file
    dispatcher._cache._cache_file = _checked_file()(
        kept._cache_path, kept._index_name.removesuffix(".nbi"), kept._source_stamp
    )
    compiled: Callable[P, R] = dispatcher
    return compiled


@cache
def _warn_no_cache_folder() -> None:
    LOG.warning(
        "no folder for compiled code is writable, so every process recompiles it (a few seconds); set "
        "NUMBA_CACHE_DIR to one that can"
    )


@cache
def _checked_file() -> Any:
    """Return a subclass of numba's cache file (index and code) that appends and checks a SHA-256.

    numba unpickles these files and runs their code unchecked: a flipped bit raises an arbitrary exception in the
    caller, or gives wrong results. numba has no option for this. Unpickling ignores the bytes appended.
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
                raise FileNotFoundError(name)  # numba then compiles the function
            return super()._load_data(name)

    return CheckedFile


def _is_whole(path: Path) -> bool:
    """Whether a cache file ends with its own digest; logs a warning if not."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return False
    if unsealed_bytes(content) is not None:
        return True
    _warn_damaged_cache(path.parent)
    return False


@cache
def _warn_damaged_cache(folder: Path) -> None:
    LOG.warning("%s: compiled code is damaged, or of another version of this package; recompiling it", folder)


def raise_interrupt(error: BaseException) -> None:
    """Raise KeyboardInterrupt if it caused `error`: one that arrives during the call of a compiled function ends the
    call with a SystemError (in about one of 100 interrupts of a loader without threads)."""
    cause = error.__cause__ or error.__context__
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        cause = cause.__cause__ or cause.__context__
