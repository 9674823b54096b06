"""The package's logger; each line names its rank."""

import logging
import sys
from pathlib import Path

LOG = logging.getLogger("hms_dist")


def start_log(rank: int = 0, file: Path | None = None) -> None:
    """Log to standard error (rank 0; other ranks warnings only) and, if given, to `file`."""
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
