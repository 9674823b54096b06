"""Atomic writes, bounded reads and digests of files.

A file that later commands rely on carries a digest of its content: the last line of a YAML file, a key of a JSON
object, the metadata of a Parquet file (`parquet`), the last bytes of an array. A file without a digest is accepted:
earlier versions wrote none, and a person who edits a file removes it.
"""

import errno
import hashlib
import json
import os
import re
import stat
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from hms_dist.core import limits
from hms_dist.core.alive import has_ended, machine
from hms_dist.core.errors import UserError

DIGEST_KEY = "digest"
"""Key of a JSON object that holds the digest of its other keys."""
CHANGED = "its digest does not match, so it was changed or damaged since it was written; restore it from a copy"
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_TEMPORARY = re.compile(r"\..+\.((?P<writer>[0-9a-f]{12}|)-(?P<pid>[0-9]{1,9})-[0-9a-f]{12}|[0-9a-f]{32})\.tmp")
"""Names of temporary files; older versions wrote 32 digits."""
_ABANDONED_S = 86400.0
_LISTED: set[Path] = set()
"""Folders in which this process has looked for what killed writers left."""


@contextmanager
def atomic(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file next to `path`; on success, sync it and rename it to `path`.

    An exception or a kill leaves `path` unchanged. Temporary names are unique across machines and containers (where
    every process may have pid 1). Temporary files of killed writers in the folder are removed.
    """
    temporary = path.with_name(f".{path.name}.{_writer()}-{os.getpid()}-{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open(mode, errors=None if "b" in mode else "backslashreplace") as file:
            _remove_abandoned(path.parent, os.fstat(file.fileno()).st_mtime)
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


def _writer() -> str:
    """Names the machine in a temporary name; empty where it has no name of its own."""
    name = machine()
    return hashlib.sha256(name.encode()).hexdigest()[:12] if name else ""


def _remove_abandoned(folder: Path, now_s: float) -> None:
    """Remove the temporary files of writers that were killed, once for each folder: large folders take long to list.

    Those whose writer could be seen here and has ended, and any that nobody has touched for a day (`now_s`: the present
    by the clock of the file server).
    """
    if folder in _LISTED:
        return
    _LISTED.add(folder)
    with suppress(OSError):  # a folder that may be written, but not listed
        for entry in os.scandir(folder):
            name = _TEMPORARY.fullmatch(entry.name)
            if name is None:
                continue
            with suppress(OSError):  # another process was quicker, or the file is another user's
                is_dead = name["writer"] and name["writer"] == _writer() and has_ended(int(name["pid"]))
                if is_dead or now_s - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_S:
                    os.unlink(entry.path)


def _is_about(error: OSError, temporary: Path) -> bool:
    """Whether an error concerns the temporary file. Some errors, such as a full disk, carry no file name."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return error.filename == str(temporary) or (error.filename is None and error.errno in full)


def sync(path: Path) -> None:
    """fsync a file, or a folder after a rename.

    Some file systems cannot sync folders (CIFS, VirtualBox shared folders, some FUSE): their EINVAL and ENOTSUP are
    ignored.
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


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises OSError for anything else; opening a pipe would block."""
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
    """Read a regular file of at most `limit` bytes. Raises OSError as `open_file`, or if the file is larger."""
    with open_file(path) as file:
        too_large = os.fstat(file.fileno()).st_size > limit
        content = b"" if too_large else file.read()
    if too_large:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes, the most that is read of such a file", str(path))
    return content


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError as `read_bytes`, ValueError as `parse_json`."""
    return parse_json(read_bytes(path, limits.JSON_BYTES))


def parse_json(content: bytes | str) -> Any:
    """Parse JSON. Raises ValueError for invalid text, NaN, infinities and deep nesting."""
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
        deep = depth_exceeds(value, limits.JSON_DEPTH)
    except RecursionError:
        deep = True
    if deep:
        raise ValueError(f"more than {limits.JSON_DEPTH} lists or objects within one another")
    return value


def depth_exceeds(value: Any, most: int) -> bool:
    """Whether plain values are nested more than `most` levels deep."""
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
    """Read a JSON object; return {} if the file is missing or unreadable."""
    try:
        value = read_json(path)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def required_object(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON object. Raises UserError that ends in `remedy` if the file is damaged, OSError as `read_bytes`."""
    try:
        value = read_json(path)
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; {remedy}")
    return value


def indented_json(value: Any) -> bytes:
    """Return indented JSON with keys in their order, as `write_json` writes it."""
    return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"


def canonical_json(value: Any) -> bytes:
    """Return canonical JSON (sorted keys, no spaces), the input of digests."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, in hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hex. Raises OSError as `open_file`."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed_text(text: str) -> str:
    """Append the digest of YAML text as a comment on its last line."""
    text += "# sha256: "
    return f"{text}{hashlib.sha256(text.encode()).hexdigest()}\n"


def check_sealed_text(path: Path) -> None:
    """Raise UserError if a file's text does not match the digest on its last line."""
    content = read_bytes(path, limits.YAML_BYTES)
    last_line = re.search(rb"sha256: ([0-9a-f]{64})\s*\Z", content)
    if last_line and last_line[1].decode() != hashlib.sha256(content[: last_line.start(1)]).hexdigest():
        raise UserError(f"{path}: {CHANGED}, or remove its last line if you changed it on purpose")


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Add its digest to a JSON object."""
    return {**value, DIGEST_KEY: digest(json.loads(indented_json(value)))}


def unsealed(value: Any, where: Path) -> Any:
    """Check and remove the digest of a JSON value read from `where`. Raises UserError if it does not match."""
    if not isinstance(value, dict) or DIGEST_KEY not in value:
        return value
    rest = {name: part for name, part in value.items() if name != DIGEST_KEY}
    if value[DIGEST_KEY] != digest(rest):
        raise UserError(f"{where}: {CHANGED}, or remove its key '{DIGEST_KEY}' if you changed it on purpose")
    return rest


def sealed_bytes(content: bytes) -> bytes:
    """Append a digest to bytes."""
    return content + hashlib.sha256(content).digest()


def unsealed_bytes(content: bytes) -> bytes | None:
    """Remove the digest from bytes; return None if it does not match."""
    size = hashlib.sha256().digest_size
    return content[:-size] if hashlib.sha256(content[:-size]).digest() == content[-size:] else None
