"""Which processes of this machine have ended, so that nobody has to wait for what they left."""

import os
from pathlib import Path


def machine() -> str:
    """Names the set of processes that this one can see; empty where the system has no name for it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def has_ended(pid: int) -> bool:
    """Whether no process with this number runs here: there is none, or it waits for its parent to collect it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """A killed process that its parent has not yet collected, from Linux's /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
