"""Detect processes of this machine that have ended, so that nothing waits for them."""

import os
from pathlib import Path


def machine() -> str:
    """Identify the set of processes visible to this one; empty where the system does not report it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def has_ended(pid: int) -> bool:
    """Whether no process with this pid runs here: there is none, or it is a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    """Whether a process was killed but not yet reaped by its parent, from /proc."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (OSError, IndexError):
        return False
