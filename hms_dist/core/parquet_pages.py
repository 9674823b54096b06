"""Page sizes announced by the page headers of a Parquet file: Arrow allocates them whatever the footer announces."""

from typing import IO

import pyarrow.parquet as pq

_HEADER_BYTES = 1 << 16
"""Bytes that hold any page header, unless it contains long statistics."""
_TRUE, _FALSE, _BYTE, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 6, 7, 8, 9, 10, 12
"""Types of the Thrift compact protocol."""


def largest_page(file: IO[bytes], column: pq.ColumnChunkMetaData) -> int:
    """Return the decompressed size of a column chunk's largest page, from the page headers. Raises ValueError if a
    header cannot be read or points outside the chunk."""
    if not column.num_values:
        return 0
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    place = min(starts)
    end, largest = place + column.total_compressed_size, 0
    while place < end:
        file.seek(place)
        header = _Header(file.read(_HEADER_BYTES))
        sizes = header.struct()
        compressed = sizes.get(3, -1)
        if compressed < 0 or sizes.get(2, -1) < 0:
            raise ValueError("a page without a size")
        largest = max(largest, sizes[2])
        place += header.place + compressed
    return largest


class _Header:
    """Reader of a structure in the Thrift compact protocol."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[int, int]:
        """Return the integers of a structure by field number; other fields are skipped."""
        if depth > 8:
            raise ValueError("a page header too deep")
        found: dict[int, int] = {}
        field = 0
        while kind := self._byte():
            field = field + (kind >> 4) if kind >> 4 else self._signed()
            kind &= 15
            if _BYTE < kind <= _I64:
                found[field] = self._signed()
            else:
                self._skip(kind, depth)
        return found

    def _skip(self, kind: int, depth: int) -> None:
        if kind in (_TRUE, _FALSE):
            return
        if kind == _STRUCT:
            self.struct(depth + 1)
        elif kind in (_LIST, _SET):
            head = self._byte()
            for _ in range(head >> 4 if head >> 4 < 15 else self._number()):
                self._skip_item(head & 15, depth)
        elif kind <= _BINARY:
            length = {_BYTE: 1, _DOUBLE: 8}.get(kind) or self._number()
            self.place += length
        else:
            raise ValueError(f"a page header with a field of type {kind}")

    def _skip_item(self, kind: int, depth: int) -> None:
        if _BYTE < kind <= _I64:
            self._number()
        elif kind in (_TRUE, _FALSE):
            self.place += 1
        else:
            self._skip(kind, depth + 1)

    def _byte(self) -> int:
        if self.place >= len(self._content):
            raise ValueError("a page header cut short")
        self.place += 1
        return self._content[self.place - 1]

    def _number(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)
