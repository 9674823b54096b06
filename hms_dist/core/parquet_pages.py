"""Sizes announced by footer and page headers of a Parquet file: Arrow allocates that much memory for a page.

Read here because Arrow's own view of a column chunk ends the process for some damaged footers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

_HEADER_BYTES = 1 << 16
"""Size that suffices for a page header, unless it contains long statistics."""
_FOOTER_BYTES = 4 << 20
"""Limit of a footer, in which a column chunk takes some 150 bytes."""
_MOST_DEPTH = 8
_TRUE, _FALSE, _BYTE, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 5, 6, 7, 8, 9, 10, 12
"""Types of the Thrift compact protocol."""


@dataclass(frozen=True)
class Chunk:
    """A column's part of a row group."""

    start: int
    """Position of its first page in the file, bytes."""
    num_bytes: int
    num_values: int


def column_chunks(file: IO[bytes]) -> list[list[Chunk]]:
    """Return the chunks of every row group, in the order of the schema's columns. Raises ValueError for a damaged
    footer."""
    file.seek(-8, 2)
    size = int.from_bytes(file.read(4), "little")
    if size > _FOOTER_BYTES:
        raise ValueError(f"a footer of {size} bytes; expected at most {_FOOTER_BYTES}")
    file.seek(-8 - size, 2)
    groups = _structs(_Thrift(file.read(size)).struct(), 4)
    return [[_chunk(column) for column in _structs(group, 1)] for group in groups]


def largest_page(file: IO[bytes], chunk: Chunk) -> int:
    """Return the decompressed size of a column chunk's largest page, from the page headers. Raises ValueError if a
    header cannot be read or points outside the chunk."""
    if not chunk.num_values:
        return 0
    place, largest = chunk.start, 0
    end = place + chunk.num_bytes
    while place < end:
        file.seek(place)
        header = _Thrift(file.read(_HEADER_BYTES))
        sizes = header.struct()
        whole, compressed = sizes.get((2, _I32), -1), sizes.get((3, _I32), -1)
        if not (0 <= compressed < 1 << 31 and 0 <= whole < 1 << 31):
            raise ValueError("a page without a size")
        largest = max(largest, whole)
        place += header.place + compressed
    if place > end:
        raise ValueError("a page that reaches out of its column")
    return largest


def _chunk(column: dict[tuple[int, int], Any]) -> Chunk:
    facts = column.get((3, _STRUCT), {})
    num_values, num_bytes, start, dictionary = (facts.get((field, _I64), 0) for field in (5, 7, 9, 11))
    return Chunk(min(start, dictionary) if dictionary > 0 else start, num_bytes, num_values)


def _structs(value: dict[tuple[int, int], Any], field: int) -> list[dict[tuple[int, int], Any]]:
    found: list[Any] = value.get((field, _LIST), [])
    if not all(isinstance(item, dict) for item in found):
        raise ValueError("a footer with other values than structures")
    return found


class _Thrift:
    """Reader of values in the Thrift compact protocol."""

    def __init__(self, content: bytes) -> None:
        self._content, self.place = content, 0

    def struct(self, depth: int = 0) -> dict[tuple[int, int], Any]:
        """Return the values of a structure by field and type. Raises ValueError for a duplicate field."""
        found: dict[tuple[int, int], Any] = {}
        field = 0
        while head := self._byte():
            kind = head & 15
            field = field + (head >> 4) if head >> 4 else self._signed()
            field = (field + 0x8000) % 0x10000 - 0x8000  # 16 bits
            value = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
            if (field, kind) in found:
                raise ValueError(f"field {field} twice in a structure")
            found[field, kind] = value
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if _BYTE < kind <= _I64:
            return self._signed()
        if kind in (_TRUE, _FALSE, _BYTE):  # true and false as items of a list
            return self._bytes(1)
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._number())
        if depth == _MOST_DEPTH:
            raise ValueError("structures too deep")
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            return list(self._items(depth + 1))
        raise ValueError(f"a field of type {kind}")

    def _items(self, depth: int) -> Iterator[Any]:
        head = self._byte()
        for _ in range(head >> 4 if head >> 4 < 15 else self._number()):
            yield self._value(head & 15, depth)

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._content[self.place : self.place + count]
        if len(found) < count:
            raise ValueError("a structure cut short")
        self.place += count
        return found

    def _number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than 10 bytes")

    def _signed(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)
