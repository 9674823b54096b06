"""Writing files so that nothing half-written looks whole, and digests by which a later reader tells a changed one.

A file that a later command relies on carries a digest of its content in the form that suits it: a last line of YAML, a
key of JSON, the metadata of Parquet, the last bytes of an array. A file without one, as older versions wrote it, is
taken as it is; so is one whose digest a person removed after changing it.
"""

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hms_dist.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

DIGEST_KEY = "digest"
"""Of a JSON object: the digest of the other keys."""
TABLE_DIGEST_KEY = b"hms_dist.digest"
"""The same in the metadata of a Parquet table."""
_CHANGED = "its digest does not match, so it was changed or damaged since it was written; restore it from a copy"


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`.

    An exception (or a kill) leaves `path` as it was. No two writers share the temporary name, wherever they run:
    in containers every process may be number 1.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open(mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and _is_about(error, temporary):
            error.filename = str(path)
        raise
    sync(path.parent)


def _is_about(error: OSError, temporary: Path) -> bool:
    """Whether an error is of writing the temporary file; a full disk and the like come without a name."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return error.filename == str(temporary) or (error.filename is None and error.errno in full)


def sync(path: Path) -> None:
    """Make a file's bytes durable, or the renames inside a folder where its file system can sync folders.

    Some cannot (CIFS, VirtualBox's shared folders, some of FUSE): they answer EINVAL or ENOTSUP.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        is_folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as file:
        file.write(indented_json(value))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def indented_json(value: Any) -> bytes:
    """JSON for people, in the order of its keys: the bytes that `write_json` writes."""
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def canonical_json(value: Any) -> bytes:
    """The one byte string of a JSON value: sorted keys, no spaces. What digests are taken over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed_text(text: str) -> str:
    """Lines of YAML with the digest of all that is before it as a comment below."""
    text += "# sha256: "
    return f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n"


def check_text(path: Path) -> None:
    """Raises UserError if the text of a file is not what its last line has the digest of."""
    content = path.read_bytes()
    last_line = re.search(rb"sha256: ([0-9a-f]{64})\s*\Z", content)
    if last_line and last_line[1].decode() != hashlib.sha256(content[: last_line.start(1)]).hexdigest():
        raise UserError(f"{path}: {_CHANGED}, or remove its last line if you changed it on purpose")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with its digest."""
    return {**value, DIGEST_KEY: digest(json.loads(indented_json(value)))}


def unsealed(value: Any, where: Path) -> Any:
    """A JSON value read from `where`, without its digest. Raises UserError if that does not match."""
    if not isinstance(value, dict) or DIGEST_KEY not in value:
        return value
    rest = {name: part for name, part in value.items() if name != DIGEST_KEY}
    if value[DIGEST_KEY] != digest(rest):
        raise UserError(f"{where}: {_CHANGED}, or remove its key '{DIGEST_KEY}' if you changed it on purpose")
    return rest


def write_table(path: Path, table: "pa.Table") -> None:
    """Write a table as Parquet with its digest, atomically."""
    import pyarrow.parquet as pq

    metadata = {**(table.schema.metadata or {}), TABLE_DIGEST_KEY: _table_digest(table)}
    with atomic(path) as file:
        pq.write_table(table.replace_schema_metadata(metadata), file)


def read_table(path: Path) -> "pa.Table":
    """A Parquet table. Raises UserError if its digest does not match, OSError or ArrowException if it is none."""
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path).read()
        found = (table.schema.metadata or {}).get(TABLE_DIGEST_KEY)
        is_changed = found is not None and found != _table_digest(table)
    except (UnicodeDecodeError, TypeError):  # texts that are none
        is_changed = True
    if is_changed:
        raise UserError(f"{path}: {_CHANGED}, or write it again")
    return table


def sealed_bytes(content: bytes) -> bytes:
    """Bytes with their digest behind them."""
    return content + hashlib.sha256(content).digest()


def unsealed_bytes(content: bytes) -> bytes | None:
    """Bytes without the digest behind them; None if it is not theirs."""
    size = hashlib.sha256().digest_size
    return content[:-size] if hashlib.sha256(content[:-size]).digest() == content[-size:] else None


def _table_digest(table: "pa.Table") -> bytes:
    """Of names, values and metadata, however they are encoded in the file."""
    own = {TABLE_DIGEST_KEY, b"ARROW:schema"}
    notes = {key.hex(): value.hex() for key, value in (table.schema.metadata or {}).items() if key not in own}
    types = [str(column.type).removeprefix("large_") for column in table.columns]  # a file may widen texts
    content = hashlib.sha256(canonical_json([table.column_names, types, notes]))
    for column in table.columns:
        content.update(column.is_null().to_numpy().tobytes())
        values = column.drop_null()
        try:
            content.update(values.to_numpy().tobytes() if values.type.bit_width >= 8 else _as_json(values))
        except ValueError:  # no fixed width: texts
            content.update(_as_json(values))
    return content.hexdigest().encode()


def _as_json(values: "pa.ChunkedArray") -> bytes:
    return canonical_json(values.to_pylist())
