"""Writing files so that nothing half-written looks whole, and hashing what was written."""

import errno
import hashlib
import json
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


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
