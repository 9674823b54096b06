"""What every long job shares: log lines that name their rank, and a record of the environment."""

import importlib.metadata
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

LOG = logging.getLogger("hms_dist")
RECORDED_PACKAGES = (
    "hms-dist", "numpy", "scipy", "numba", "pandas", "pyarrow", "zstandard",
    "torch", "timm", "accelerate", "webdataset",
)  # fmt: skip
SLURM_PREFIXES = ("SLURM_JOB", "SLURM_ARRAY", "SLURM_RESTART")
"""Variables that say which batch job this is."""


def start_log(rank: int = 0, file: Path | None = None) -> None:
    """Send log lines to standard error (rank 0 only, unless they are warnings) and, if given, to `file`."""
    form = logging.Formatter(f"%(asctime)s rank {rank} %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")
    screen = logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    handlers: list[logging.Handler] = [screen]
    if file is not None:
        handlers.append(logging.FileHandler(file, errors="backslashreplace"))
    for handler in list(LOG.handlers):
        LOG.removeHandler(handler)
        handler.close()
    for handler in handlers:
        handler.setFormatter(form)
        LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result; absent packages are left out."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """The machine and software of this process, for environment.json."""
    return {
        "versions": versions(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "num_cores": len(os.sched_getaffinity(0)),
        "command": sys.argv,
        "slurm": {name: value for name, value in sorted(os.environ.items()) if name.startswith(SLURM_PREFIXES)},
    }


def check_seed(name: str, seed: int) -> None:
    """Refuse seeds outside 0..2^32-1: frameworks fold larger ones onto others without a word."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"{name}: expected 0 to {2**32 - 1}, found {seed}")
