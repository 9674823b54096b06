"""Parquet files: sizes checked before decoding, one-line errors for damage, tables with a digest."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import CHANGED, atomic, canonical_json, open_file
from hms_dist.core.parquet_pages import column_chunks, largest_page

TABLE_DIGEST_KEY = b"hms_dist.digest"
"""Metadata key: digest of the table's column names, values and other metadata."""


class ParquetError(ValueError):
    """A file is not Parquet, is damaged, or exceeds the limits; the message is one line."""


def allowed_bytes(file_bytes: int) -> int:
    """Return the most bytes that the values of a Parquet file of this size may take in memory."""
    return limits.PARQUET_FREE_BYTES + limits.PARQUET_RATIO * file_bytes


def read_parquet(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read the named columns and the file's metadata. `columns` None: all numeric, text and boolean columns.

    Columns that the file lacks are omitted. Raises OSError if the file is missing, ParquetError for anything else.
    """
    with _opened(source) as file:
        try:
            return _read(file, columns)
        except UserError:
            raise
        except (
            Exception
        ) as error:  # Arrow passes on any exception of its decoders, RuntimeError and UnicodeDecodeError included
            raise ParquetError(" ".join(str(error).split()) or type(error).__name__) from error


def read_schema(path: Path) -> pa.Schema:
    """Read the columns and metadata of a file. Raises as `read_parquet`."""
    return _footer(path).schema_arrow


def num_rows(path: Path) -> int:
    """Return the number of rows from the footer. Raises as `read_parquet`."""
    return int(_footer(path).metadata.num_rows)


def check_footer(footer: pq.FileMetaData, file_bytes: int, names: Sequence[str]) -> None:
    """Raise ParquetError if the named columns exceed the limits for a file of this size."""
    allowed = allowed_bytes(file_bytes)
    announced = footer.num_rows * len(names) * limits.PARQUET_VALUE_BYTES
    encoded = 0
    for group in range(footer.num_row_groups):
        encoded += max(footer.row_group(group).total_byte_size, 0)
    if not 0 <= footer.num_rows <= limits.PARQUET_ROWS or max(announced, encoded) > allowed:
        raise ParquetError(
            f"{footer.num_rows} rows of {len(names)} columns in {file_bytes} bytes; so small a file may hold "
            f"{allowed} bytes of values"
        )


def _check_pages(file: IO[bytes], reader: pq.ParquetFile, names: Sequence[str], allowed: int) -> None:
    """Raise ParquetError if a page of the named columns announces more bytes than allowed."""
    left = file.seek(0, 2)
    paths = [reader.schema.column(number).path for number in range(reader.metadata.num_columns)]
    for group in column_chunks(file):
        if len(group) != len(paths):
            raise ParquetError(f"a group of rows with {len(group)} columns; expected {len(paths)}")
        for path, chunk in zip(paths, group, strict=True):
            left -= chunk.num_bytes
            if chunk.num_bytes < 0 or left < 0:
                raise ParquetError(f"column {path}: its size is not that of a part of the file")
            if path in names and largest_page(file, chunk) > allowed:
                raise ParquetError(f"column {path}: a page of more than {allowed} bytes")
    file.seek(0)


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table with its digest as Parquet, atomically."""
    metadata = {**(table.schema.metadata or {}), TABLE_DIGEST_KEY: _table_digest(table)}
    with atomic(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)


def read_table(path: Path) -> pa.Table:
    """Read a table as `read_parquet`. Also raises UserError if its digest does not match."""
    table = read_parquet(path)
    found = (table.schema.metadata or {}).get(TABLE_DIGEST_KEY)
    if found is not None and found != _table_digest(table):
        raise UserError(f"{path}: {CHANGED}, or write it again")
    return table


def _footer(path: Path) -> pq.ParquetFile:
    with _opened(path) as file:
        try:
            return pq.ParquetFile(file)
        except Exception as error:
            raise ParquetError(" ".join(str(error).split()) or type(error).__name__) from error


def _opened(source: Path | bytes) -> IO[bytes]:
    return BytesIO(source) if isinstance(source, bytes) else open_file(source)


def _read(file: IO[bytes], columns: Sequence[str] | None) -> pa.Table:
    file_bytes = file.seek(0, 2)
    schema = pq.ParquetFile(file).schema_arrow
    simple = [field.name for field in schema if _is_simple(field.type)]
    names = [name for name in simple if columns is None or name in columns]
    texts = [name for name in names if not _is_number(schema.field(name).type)]
    # Texts are read as dictionaries first: a long text that every row repeats takes only a few bytes in the file.
    reader = pq.ParquetFile(file, read_dictionary=texts)
    check_footer(reader.metadata, file_bytes, names)
    _check_pages(file, reader, names, allowed_bytes(file_bytes))
    table = reader.read(columns=names, use_threads=False)
    if len(set(names)) < len(names):
        raise ParquetError("two columns of one name")
    left = allowed_bytes(file_bytes)
    for name in texts:
        left -= _num_text_bytes(table[name])
        if left < 0:
            raise ParquetError(f"column {name} holds longer texts than so small a file may")
        place = table.column_names.index(name)
        table = table.set_column(place, pa.field(name, pa.string()), table[name].cast(pa.string()))
    return table.replace_schema_metadata(schema.metadata)


def _num_text_bytes(column: pa.ChunkedArray) -> int:
    total = 0
    for chunk in column.chunks:
        if pa.types.is_dictionary(chunk.type):
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
        else:
            lengths = pc.binary_length(chunk)
        total += pc.sum(lengths).as_py() or 0
    return total


def _is_simple(kind: pa.DataType) -> bool:
    return _is_number(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or _is_text_dictionary(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def _is_text_dictionary(kind: pa.DataType) -> bool:
    return pa.types.is_dictionary(kind) and (pa.types.is_string(kind.value_type))


def _table_digest(table: pa.Table) -> bytes:
    """Digest column names, values and metadata, independent of their encoding in the file."""
    own = {TABLE_DIGEST_KEY, b"ARROW:schema"}
    notes = {key.hex(): value.hex() for key, value in (table.schema.metadata or {}).items() if key not in own}
    types = [
        str(column.type).removeprefix("large_") for column in table.columns
    ]  # files may store texts as wider types
    content = hashlib.sha256(canonical_json([table.column_names, types, notes]))
    for column in table.columns:
        content.update(column.is_null().to_numpy().tobytes())
        values = column.drop_null()
        try:
            content.update(values.to_numpy().tobytes() if values.type.bit_width >= 8 else _as_json(values))
        except ValueError:  # no fixed width: text
            content.update(_as_json(values))
    return content.hexdigest().encode()


def _as_json(values: pa.ChunkedArray) -> bytes:
    return canonical_json(values.to_pylist())
