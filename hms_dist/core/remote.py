"""Files at a URL (http, s3, gs: any fsspec scheme), read whole or by range, with retries and time-outs.

The network is used only if the user gives a URL.
"""

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hms_dist.core import files, limits
from hms_dist.core.errors import UserError, first_line

T = TypeVar("T")
FIRST_PAUSE_S = 0.1
"""Seconds before the first retry; each further pause is twice as long."""
LONGEST_PAUSE_S = 10.0


def is_url(location: str | Path) -> bool:
    """Whether the location of a shard set is a URL rather than a folder."""
    return "://" in str(location)


def join(location: str | Path, name: str) -> str | Path:
    """Join a folder or URL and a file name; the query of an http URL (a signature, a token) stays at its end."""
    if not is_url(location):
        return Path(location) / name
    base, mark, query = str(location).partition("?") if str(location).startswith("http") else (str(location), "", "")
    return f"{base.rstrip('/')}/{name}{mark}{query}"


def advice(location: str | Path, error: BaseException | None = None, content: bytes = b"") -> str:
    """Advice for a file of a shard set that cannot be read; `content` is the unexpected content, if any."""
    if not is_url(location):
        return "run hms-dist verify"
    if isinstance(error, PermissionError):
        return "the server refuses access: check the token or the credentials, and whether they expired"
    if content.lstrip()[:1] == b"<":
        return "the server sent a web page (of a login, perhaps): check the URL and the access to it"
    return "check the URL and the server"


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Time-out and retries of requests to a server."""

    timeout_s: float = 60.0
    """Seconds to wait for the answer to one request. Synchronous fsspec file systems (sftp) use their own time-out."""
    num_retries: int = 5
    """Retries of a failed request, after pauses of 0.1, 0.2, 0.4 ... seconds."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s: expected more than 0, found {self.timeout_s}")
        if self.num_retries < 0:
            raise ValueError(f"num_retries: expected at least 0, found {self.num_retries}")

    def retried(self, attempt: Callable[[], T], pause: Callable[[float], object] = time.sleep) -> T:
        """Return the result of `attempt`, retried after an OSError; the last error is raised.

        A missing file, denied access and a `FinalAnswerError` are not retried. Neither is anything once `pause` returns
        true, which means that it was interrupted because the result is no longer needed.
        """
        for number in range(self.num_retries):
            try:
                return attempt()
            except (FileNotFoundError, PermissionError, FinalAnswerError):
                raise
            except OSError:
                if pause(min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)):
                    raise
        return attempt()


class FinalAnswerError(OSError):
    """An answer that a retry would not change: too large, or compressed."""


class RemoteFile:
    """A file at a URL. Thread-safe."""

    def __init__(self, url: str, retry_policy: RetryPolicy) -> None:
        self._url, self._retry_policy = url, retry_policy

    def read(self, start: int, end: int) -> bytes:
        """Read bytes `start` to `end`. Raises OSError, also if the answer has another length; no retries."""
        content = self._asked(start, end) if end > start else b""
        if len(content) != end - start:
            raise OSError(f"expected {end - start} bytes, the server sent {len(content)}")
        return content

    def read_all(self, limit: int) -> bytes:
        """Read the whole file. Raises OSError, also if it is larger than `limit`; no retries."""
        content = self._asked(None, limit)
        if len(content) > limit:
            raise FinalAnswerError(errno.EFBIG, f"larger than {limit} bytes, the most that is read of such a file")
        return content

    def _asked(self, start: int | None, end: int) -> bytes:
        try:
            return self._ask(start, end)
        except TimeoutError as error:
            raise OSError(f"no answer within {self._retry_policy.timeout_s:g} s") from error
        except (OSError, UserError):
            raise
        except Exception as error:  # each fsspec implementation raises its own exceptions
            raise OSError(first_line(error)) from error

    def _ask(self, start: int | None, end: int) -> bytes:
        """Request a range; `start` None: the whole file, but at most one byte beyond `end`."""
        system, path = self._place
        first, last = start or 0, end + (start is None)  # one byte more shows that a file is too large
        if "file" in system.protocol:
            return _local_bytes(Path(path), first, last)
        if not system.async_impl:
            found: bytes = system.cat_file(path, start=first, end=last)
            return found
        from fsspec.asyn import sync
        from fsspec.implementations.http import HTTPFileSystem

        timeout = self._retry_policy.timeout_s
        if isinstance(system, HTTPFileSystem):
            asked: bytes = sync(system.loop, _http_body, system, path, start, end, timeout=timeout)
        else:
            asked = sync(system.loop, system._cat_file, path, start=first, end=last, timeout=timeout)
        return asked

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """Return fsspec's file system and the path in it. Raises UserError for an unknown scheme."""
        import fsspec

        try:
            return fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{self._url}: cannot be opened ({error}); install the package or correct the URL"
            ) from error


def _local_bytes(path: Path, start: int, end: int) -> bytes:
    try:
        with files.open_file(path) as file:
            file.seek(start)
            return file.read(max(min(end, os.fstat(file.fileno()).st_size) - start, 0))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FinalAnswerError(error.strerror) from error


async def _http_body(system: Any, url: str, start: int | None, end: int) -> bytes:
    """Read the body of one answer: the requested range or (`start` None) everything up to one byte beyond `end`.

    fsspec itself reads whatever a server sends, decompressed. Raises OSError for another range, a compressed body, or a
    body that is too long, before reading it.
    """
    headers = {"Accept-Encoding": "identity"}
    if start is not None:
        headers["Range"] = f"bytes={start}-{end - 1}"
    session = await system.set_session()
    options = {**system.kwargs, "headers": {**system.kwargs.get("headers", {}), **headers}, "auto_decompress": False}
    async with session.get(system.encode_url(url), **options) as answer:
        if answer.status in (401, 403):
            raise PermissionError(errno.EACCES, f"HTTP {answer.status} {answer.reason}")
        system._raise_not_found_for_status(answer, url)
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise FinalAnswerError(f"the server sent it encoded ({encoding[:20]}), which was not asked for")
        most = end - (start or 0)
        if start is not None:
            sent = answer.headers.get("Content-Range", "")
            if answer.status == 206 and sent and not sent.startswith(f"bytes {start}-{end - 1}/"):
                raise OSError(f"expected bytes {start} to {end}, the server sent the range '{sent[:60]}'")
            if answer.status != 206 and (start or answer.content_length != most):
                raise OSError("the server does not answer requests for a range of bytes; it sent the whole file")
        if (answer.content_length or 0) > most:
            raise FinalAnswerError(f"expected at most {most} bytes, the server announces {answer.content_length}")
        body = bytearray()
        async for piece in answer.content.iter_any():
            body += piece
            if len(body) > most:
                raise FinalAnswerError(f"expected at most {most} bytes, the server sends more")
        return bytes(body)


def read_bytes(location: str | Path, limit: int = limits.PARQUET_BYTES) -> bytes:
    """Read a local file or a URL of at most `limit` bytes, with retries. Raises OSError."""
    if isinstance(location, Path):
        return files.read_bytes(location, limit)
    retry_policy = RetryPolicy()
    return retry_policy.retried(lambda: RemoteFile(location, retry_policy).read_all(limit))
