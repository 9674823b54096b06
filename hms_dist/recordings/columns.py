"""Numeric columns of a Parquet file in memory as numpy arrays, with a user error for each fault."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hms_dist.core.errors import UserError

if TYPE_CHECKING:
    from pyarrow import Table


class Columns:
    """Columns of one Parquet file."""

    def __init__(self, content: bytes, path: Path) -> None:
        """Open `content`, the bytes of `path`. Raises UserError if it is not Parquet or has no rows."""
        from pyarrow import BufferReader
        from pyarrow.parquet import ParquetFile

        from hms_dist.core.parquet import check_footer

        self.path = path
        try:
            self._file = ParquetFile(BufferReader(content))
            check_footer(self._file.metadata, len(content), self._file.schema_arrow.names)
        except Exception as error:  # Arrow passes on any exception of its decoders
            raise UserError(f"{path}: not a readable parquet file ({_one_line(error)}); download it again") from error
        self._schema = self._file.schema_arrow
        self.names: list[str] = self._schema.names
        if self._file.metadata.num_rows == 0:
            raise UserError(f"{path}: the file has no rows; expected at least one; download it again")

    def read(self, names: Sequence[str]) -> "Table":
        """Read the named columns as an Arrow table.

        Raises UserError for missing, duplicate or non-numeric columns and for damaged data.
        """
        from pyarrow import types

        kinds = dict(zip(self.names, self._schema.types, strict=True))
        missing = [name for name in names if name not in kinds]
        if missing:
            raise UserError(
                f"{self.path}: missing columns {some(missing)}; found {some(self.names)}; export the file with them"
            )
        twice = [name for name in names if self.names.count(name) > 1] if len(kinds) < len(self.names) else []
        if twice:
            raise UserError(f"{self.path}: columns {some(twice)} appear more than once; expected once; remove the rest")
        for name in names:
            if not (types.is_floating(kinds[name]) or types.is_integer(kinds[name])):
                raise UserError(f"{self.path}: column {name}: expected numbers, found {kinds[name]}; convert it")
        try:
            return self._file.read(columns=list(names), use_threads=False)
        except Exception as error:
            raise UserError(f"{self.path}: damaged parquet data ({_one_line(error)}); download it again") from error


def matrix(table: "Table", names: Sequence[str]) -> NDArray[np.float32]:
    """Convert columns to one float32 array [rows, columns], column-major.

    Nulls become NaN, values beyond float32 become infinite.
    """
    columns = np.empty((len(names), table.num_rows), np.float32)
    with np.errstate(over="ignore"):
        for row, name in zip(columns, names, strict=True):
            row[:] = table[name].to_numpy()
    return columns.T


def some(names: Sequence[str], most: int = 6) -> str:
    """Format names as `a, b, c and 17 more`, for messages."""
    shown = ", ".join(names[:most]) or "none"
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
