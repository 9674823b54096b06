"""Files: written so that nothing half-written looks whole, hashed, and read without waiting or reading too much."""

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from hms_dist import limits

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success sync it and rename it to `path`.

    An exception (or a kill) leaves `path` as it was. No two writers share the temporary name, wherever they run:
    in containers every process may be number 1.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open(mode, errors=None if "b" in mode else "backslashreplace") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename == str(temporary):  # no one else knows that name
            error.filename = str(path)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's bytes durable, or the renames inside a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError, also for anything else: a pipe would wait for its writer."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise _not_regular(path, os.stat(path).st_mode) if error.errno == errno.ENXIO else error from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        raise _not_regular(path, mode)
    return os.fdopen(handle, "rb")


def _not_regular(path: Path, mode: int) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    return OSError(errno.EINVAL, f"is {_KINDS.get(stat.S_IFMT(mode), 'no file')}, expected a file", str(path))


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a regular file. Raises OSError as `open_file`, and for more than `limit` bytes."""
    with open_file(path) as file:
        too_large = os.fstat(file.fileno()).st_size > limit
        content = b"" if too_large else file.read()
    if too_large:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes, the most that is read of such a file", str(path))
    return content


def read_json(path: Path) -> Any:
    """The value of a JSON file. Raises OSError as `read_bytes`, ValueError as `parse_json`."""
    return parse_json(read_bytes(path, limits.JSON_BYTES))


def parse_json(content: bytes | str) -> Any:
    """The value of JSON text. Raises ValueError for anything else, NaN, infinities and deep nesting included."""
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
        deep = depth_exceeds(value, limits.JSON_DEPTH)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(f"more than {limits.JSON_DEPTH} lists or objects within one another")
    return value


def depth_exceeds(value: Any, most: int) -> bool:
    """Whether plain values lie more than `most` lists or mappings deep."""
    level = [value]
    for _ in range(most + 1):
        level = [item for one in level if isinstance(one, dict | list) for item in _items(one)]
        if not level:
            return False
    return True


def _items(value: dict[Any, Any] | list[Any]) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic(path) as file:
        file.write(indented_json(value))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none that can be read."""
    try:
        value = read_json(path)
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
    """SHA-256 of a regular file's bytes, in hex. Raises OSError as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
