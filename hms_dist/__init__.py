"""hms_dist: pictures of harmful brain activity, from EEG recordings to trained ensembles.

The names in `__all__` are the public API, documented in docs/api.md. They are imported when they are first used,
because torch, timm and pandas take seconds.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
BEGAN_AS = (os.getpid(), os.getppid())
"""This process and its parent, asked before anything slow is imported: a launcher may die meanwhile."""

if TYPE_CHECKING:
    from hms_dist.api.recording import draw as draw
    from hms_dist.api.recording import read_clip as read_clip
    from hms_dist.api.recording import read_recording as read_recording
    from hms_dist.api.run_model import load_run as load_run
    from hms_dist.api.shards import open_shards as open_shards
    from hms_dist.api.tables import ensemble as ensemble
    from hms_dist.api.tables import score as score
    from hms_dist.core.errors import JobError as JobError
    from hms_dist.core.errors import UserError as UserError
    from hms_dist.core.plugins import load_plugins as load_plugins
    from hms_dist.train.start import train as train

__all__ = [
    "JobError",
    "UserError",
    "draw",
    "ensemble",
    "load_plugins",
    "load_run",
    "open_shards",
    "read_clip",
    "read_recording",
    "score",
    "train",
]

_MODULES = {
    "JobError": "hms_dist.core.errors",
    "UserError": "hms_dist.core.errors",
    "draw": "hms_dist.api.recording",
    "ensemble": "hms_dist.api.tables",
    "load_plugins": "hms_dist.core.plugins",
    "load_run": "hms_dist.api.run_model",
    "open_shards": "hms_dist.api.shards",
    "read_clip": "hms_dist.api.recording",
    "read_recording": "hms_dist.api.recording",
    "score": "hms_dist.api.tables",
}
"""Public name -> its module. `train` is the package of that name, which can be called."""


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("hms_dist.train")
    if name not in _MODULES:
        raise AttributeError(f"module 'hms_dist' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
