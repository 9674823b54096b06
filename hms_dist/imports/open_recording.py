"""Opening of recordings by the ending of their names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from hms_dist.core.errors import UserError
from hms_dist.imports import mne_files
from hms_dist.imports.edf import EdfFile
from hms_dist.imports.mat import MatFile
from hms_dist.imports.mne_files import MneFile
from hms_dist.imports.source import Source

EDF_SUFFIXES = (".edf", ".bdf")
SUFFIXES = (*EDF_SUFFIXES, ".mat", *mne_files.SUFFIXES)
"""Endings, in lower case, of the names of recordings."""


@contextmanager
def opened(path: Path, truncated: Literal["fail", "keep"] = "fail") -> Iterator[Source]:
    """Open a recording and close it at the end. Raises UserError naming the file, also for errors inside."""
    try:
        source = _open(path, truncated)
        try:
            yield source
        finally:
            source.close()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except OSError as error:
        if error.filename not in (None, str(path)):
            raise
        raise UserError(f"{path}: cannot read this file ({error.strerror or error}); check its permissions") from error


def _open(path: Path, truncated: Literal["fail", "keep"]) -> Source:
    suffix = path.suffix.lower()
    if not path.exists():
        raise UserError("no such file; check the path")
    if suffix in EDF_SUFFIXES:
        return EdfFile(path, truncated)
    if suffix == ".mat":
        return MatFile(path)
    if suffix in mne_files.SUFFIXES:
        return MneFile(path)
    raise UserError(f"unknown kind of recording; expected a name ending in {', '.join(SUFFIXES)}")
