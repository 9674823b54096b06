"""Launches of Triton kernels whose compilations run side by side.

Triton compiles a kernel at its first launch, and a process waits for one after the other. Kernels that are launched
together can be compiled at the same time: Triton's compiler releases the GIL.
"""

from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import triton

MODE = getattr(triton, "AsyncCompileMode", None)
"""Triton's mode in which compilations are submitted to threads; None: this version has none."""
NUM_THREADS = 8
_compiled: set[Hashable] = set()


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: Any
    """The jitted function."""
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    """Compile-time arguments and options of the launch, by name."""


def launch_all(key: Hashable, launches: Sequence[Launch]) -> None:
    """Launch kernels one after the other. The first launches for a `key` compile all of them first, in threads; `key`
    must differ for kernels that are compiled separately."""
    if MODE is not None and len(launches) > 1 and key not in _compiled:
        with ThreadPoolExecutor(NUM_THREADS) as threads, MODE(threads):
            for launch in launches:
                launch.kernel.warmup(*launch.arguments, grid=launch.grid, **launch.options)
        _compiled.add(key)
    for launch in launches:
        launch.kernel[launch.grid](*launch.arguments, **launch.options)
