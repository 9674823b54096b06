"""Files at a URL (http, s3, gs: whatever fsspec knows), read whole or by range, with retries and time-outs.

Nothing here touches a network unless the user gave a URL.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from hms_dist.errors import UserError

T = TypeVar("T")
FIRST_PAUSE_S = 0.1
"""Pause before the first retry, seconds; each further one is twice as long."""
LONGEST_PAUSE_S = 10.0


def is_url(location: str | Path) -> bool:
    """Whether a shard set's location is a URL and not a folder."""
    return "://" in str(location)


def join(location: str | Path, name: str) -> str | Path:
    """A file of a folder, or of a URL."""
    return f"{str(location).rstrip('/')}/{name}" if is_url(location) else Path(location) / name


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a server is waited for."""

    timeout_s: float = 60.0
    """Longest wait for the answer to one request, seconds. File systems that fsspec asks in step
    (sftp) have their own."""
    num_retries: int = 5
    """Further tries of a request that failed, after pauses of 0.1, 0.2, 0.4 ... seconds."""

    def __post_init__(self) -> None:
        if self.timeout_s <= 0:
            raise ValueError(f"timeout_s: expected more than 0, found {self.timeout_s}")
        if self.num_retries < 0:
            raise ValueError(f"num_retries: expected at least 0, found {self.num_retries}")

    def retried(self, attempt: Callable[[], T], pause: Callable[[float], object] = time.sleep) -> T:
        """What `attempt` returns, tried again after an OSError; the last error passes on.

        A file that does not exist and a refusal of rights are final at once, and any error once `pause` says, by
        something true, that it was cut short: nobody waits for the answer any more.
        """
        for number in range(self.num_retries):
            try:
                return attempt()
            except (FileNotFoundError, PermissionError):
                raise
            except OSError:
                if pause(min(FIRST_PAUSE_S * 2**number, LONGEST_PAUSE_S)):
                    raise
        return attempt()


class RemoteFile:
    """One file at a URL. Safe to call from several threads."""

    def __init__(self, url: str, patience: Patience) -> None:
        self._url, self._patience = url, patience

    def read(self, start: int | None = None, end: int | None = None) -> bytes:
        """Bytes from `start` to `end`, or all. Raises OSError, also for an answer of another length; no retries."""
        try:
            content = self._ask(start, end)
        except (OSError, UserError):
            raise
        except Exception as error:  # each of fsspec's implementations has its own
            raise OSError(f"{type(error).__name__}: {error}") from error
        if start is not None and end is not None and len(content) != end - start:
            raise OSError(f"expected {end - start} bytes, the server sent {len(content)}")
        return content

    def _ask(self, start: int | None, end: int | None) -> bytes:
        system, path = self._place
        if not system.async_impl:
            found: bytes = system.cat_file(path, start=start, end=end)
            return found
        from fsspec.asyn import sync

        asked: bytes = sync(system.loop, system._cat_file, path, start=start, end=end, timeout=self._patience.timeout_s)
        return asked

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """fsspec's file system and the path in it. Raises UserError for a scheme that it does not know."""
        import fsspec

        try:
            return fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            raise UserError(
                f"{self._url}: cannot be opened ({error}); install the package or correct the URL"
            ) from error


def read_bytes(location: str | Path) -> bytes:
    """All bytes of a local file or of a URL, with retries. Raises OSError."""
    if isinstance(location, Path):
        return location.read_bytes()
    patience = Patience()
    return patience.retried(RemoteFile(location, patience).read)
