"""Running a command while watching the memory of its processes (Linux: /proc)."""

import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

EVERY_S = 0.1


@dataclass(frozen=True)
class Watched:
    """Resources used by a command."""

    wall_s: float
    cpu_s: float
    """Processor time of all its processes."""
    own_mb: float
    """Peak resident memory of the process itself."""
    worker_mb: float
    """Peak resident memory of its largest descendant; 0 if it had none."""
    output: str


def watched(words: list[object]) -> Watched:
    """Run Python with `words`. Peaks are the kernel's high-water marks, read ten times a second until the end."""
    started, before_s = time.monotonic(), _children_s()
    process = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    own_mb = worker_mb = 0.0
    while process.poll() is None:
        own_mb = max(own_mb, peak_mb(process.pid))
        worker_mb = max([worker_mb, *map(peak_mb, descendants(process.pid))])
        time.sleep(EVERY_S)
    wall_s = time.monotonic() - started
    output, errors = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{words} ended with {process.returncode}: {errors.decode()[-2000:]}")
    return Watched(wall_s, _children_s() - before_s, own_mb, worker_mb, output.decode())


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def peak_mb(pid: int) -> float:
    """Peak resident memory of a process; 0 if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM")), 0.0)


def descendants(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [further for child in children for further in descendants(child)]
