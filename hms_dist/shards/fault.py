"""A fault of a shard set, and the faults of a file as a whole: missing, of another size, of other bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hms_dist.core.files import sha256_of


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a set."""

    path: Path
    """The file at fault."""
    text: str
    """What was expected and what was found."""
    damaged: bool = False
    """True if the file is not the one that the manifest names, so that making it again mends it."""

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def size_fault(folder: Path, entry: Mapping[str, Any]) -> Fault | None:
    """The fault of a file that is absent or of another size than its manifest entry says; None if it has neither."""
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
    """As `size_fault`, and the file's SHA-256 too."""
    fault = size_fault(folder, entry)
    if fault:
        return fault
    path = folder / entry["name"]
    try:
        found = sha256_of(path)
    except OSError as error:
        return Fault(path, f"cannot be read ({error.strerror})", damaged=True)
    return None if found == entry["sha256"] else Fault(path, "SHA-256 differs: the file is damaged", damaged=True)
