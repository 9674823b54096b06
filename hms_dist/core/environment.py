"""Record of a process's environment: package versions, machine, batch job."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

from hms_dist.core.plugins import loaded_plugins

RECORDED_PACKAGES = (
    "hms-dist", "numpy", "scipy", "numba", "pandas", "pyarrow", "zstandard",
    "torch", "timm", "accelerate",
)  # fmt: skip
SLURM_PREFIXES = ("SLURM_JOB", "SLURM_ARRAY", "SLURM_RESTART")
"""Environment variables that identify the batch job."""


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result. Packages that are not installed are
    omitted."""
    found = {"python": platform.python_version()}
    for name in RECORDED_PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def environment() -> dict[str, Any]:
    """Describe the machine and software of this process, for environment.json."""
    return {
        "versions": versions(),
        "plugins": loaded_plugins(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "num_cores": len(os.sched_getaffinity(0)),
        "command": sys.argv,
        "slurm": {name: value for name, value in sorted(os.environ.items()) if name.startswith(SLURM_PREFIXES)},
    }
