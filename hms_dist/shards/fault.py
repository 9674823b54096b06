"""Faults of a shard set, and checks of a file as a whole: missing, wrong size, wrong content."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hms_dist.core.files import sha256_of


@dataclass(frozen=True)
class Fault:
    """One fault of a set."""

    path: Path
    """The faulty file."""
    text: str
    """Description: expected and found."""
    damaged: bool = False
    """True if the file differs from the manifest's entry, so that rebuilding it repairs it."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def size_fault(folder: Path, entry: Mapping[str, Any]) -> Fault | None:
    """Return a fault if a file is missing or its size differs from its manifest entry, else None."""
    path = folder / entry["name"]
    try:
        if not path.is_file():
            return Fault(path, "is not a file" if path.exists() else "missing", damaged=True)
        num_bytes = path.stat().st_size
    except OSError as error:
        return Fault(path, f"cannot be looked at ({error.strerror})", damaged=True)
    if num_bytes != entry["num_bytes"]:
        return Fault(path, f"expected {entry['num_bytes']} bytes, found {num_bytes}", damaged=True)
    return None


def file_fault(folder: Path, entry: Mapping[str, Any]) -> Fault | None:
    """Check a file as `size_fault`, and also its SHA-256."""
    fault = size_fault(folder, entry)
    if fault:
        return fault
    path = folder / entry["name"]
    try:
        found = sha256_of(path)
    except OSError as error:
        return Fault(path, f"cannot be read ({error.strerror})", damaged=True)
    return None if found == entry["sha256"] else Fault(path, "SHA-256 differs: the file is damaged", damaged=True)
