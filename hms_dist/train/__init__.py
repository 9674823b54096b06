"""Training of one model on any number of ranks. The package can be called: `hms_dist.train(config)` (`start.train`)."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    """The package `hms_dist.train`, which is also the function `hms_dist.train` of the public API."""

    def __call__(self, config: Any, **options: Any) -> Path:
        """Train one model; documented in `hms_dist.train.start.train`."""
        from hms_dist.train.start import train

        return train(config, **options)


sys.modules[__name__].__class__ = _CallableModule
