"""Samples of whole tars: each tar is read at once and verified against the manifest before use.

A tar has no checksums of its members, and webdataset cannot distinguish a tar that was cut off between two members from
a short one. Reading it whole (about 50 MB) also allows a failed transfer to be retried without duplicate samples.
"""

import hashlib
import io
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import open_file
from hms_dist.core.remote import Patience
from hms_dist.stream.tars.assignment import Tar

Sample = dict[str, Any]
"""One sample of a tar: member -> bytes, `__key__`, `__url__`, and `row`, its row in the shard set."""


def read_samples(
    tars: Iterable[Tar], *, members: Mapping[str, int], wanted: Collection[int] | None, patience: Patience
) -> Iterator[Sample]:
    """Yield the requested samples (by row; None: all) of the tars, with their `members` (`json`, `traces.npy.zst`) and
    the maximum size of each.

    Raises UserError naming a tar that cannot be read, does not match the manifest, or holds another number of samples
    than the manifest.
    """
    for tar in tars:
        place = -1
        for place, sample in enumerate(group_by_keys(_files(tar, patience, members), lcase=False)):
            missing = [member for member in members if member not in sample]
            if missing or place >= tar.num_samples:
                lacks = f"lacks {missing[0]}" if missing else f"is one more than the {tar.num_samples} of the manifest"
                raise UserError(f"{tar.url}: sample {sample['__key__'][:60]} {lacks}; render the set again")
            row = tar.first_row + place
            if wanted is None or row in wanted:
                yield {**sample, "row": row}
        if place + 1 != tar.num_samples:
            raise UserError(f"{tar.url}: expected {tar.num_samples} samples, found {place + 1}; render the set again")


def _files(tar: Tar, patience: Patience, members: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the requested members of a tar in webdataset's form.

    webdataset's own reader decompresses compressed files and expands sparse ones to any size.
    """
    content = io.BytesIO(read_tar(tar, patience))
    try:
        with tarfile.open(fileobj=content, mode="r:") as opened:
            for info in opened:
                most = members.get(info.name.partition(".")[2])
                if most is None:
                    continue
                if not info.isreg() or info.issparse() or info.size > most or "/" in info.name:
                    raise UserError(
                        f"{tar.url}: member {info.name[:100]!r} of {info.size} bytes is none of this set; render again"
                    )
                file = opened.extractfile(info)
                yield {"fname": info.name, "data": file.read() if file else b"", "__url__": tar.url}
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(f"{tar.url}: not a tar of samples ({error}); render the set again") from error


def read_tar(tar: Tar, patience: Patience) -> bytes:
    """Read a tar and verify it against the manifest. Raises UserError naming it if it differs."""
    if tar.num_bytes > limits.WHOLE_TAR_BYTES:
        raise UserError(
            f"{tar.url}: {tar.num_bytes} bytes are more than the {limits.WHOLE_TAR_BYTES} that are read at once; "
            "render with a smaller samples_per_shard"
        )
    try:
        content = patience.retried(lambda: _fetch(tar.url, tar.num_bytes))
    except (OSError, ValueError) as error:
        raise UserError(f"{tar.url}: cannot be read ({error}); check the URL and its permissions") from error
    if len(content) != tar.num_bytes:
        found = len(content) if len(content) < tar.num_bytes else "more"
        raise UserError(
            f"{tar.url}: expected {tar.num_bytes} bytes, found {found}; cut off, or of another set than the "
            "manifest; copy it again, or run hms-dist verify"
        )
    if hashlib.sha256(content).hexdigest() != tar.sha256:
        raise UserError(
            f"{tar.url}: not the bytes that the manifest names; damaged, or of another set; copy it again, or run "
            "hms-dist verify"
        )
    return content


def _opened(url: str) -> Any:
    """Open a file or a URL as a stream; the command after `pipe:` is given by the user."""
    if urlparse(url).scheme == "":
        return open_file(Path(url))
    return gopen(url)


def _fetch(url: str, num_bytes: int) -> bytes:
    """Read a URL, at most one byte beyond `num_bytes`; a failing command raises OSError."""
    content = bytearray()
    with closing(_opened(url)) as stream:
        while len(content) <= num_bytes and (piece := stream.read(min(1 << 20, num_bytes + 1 - len(content)))):
            content += piece
    return bytes(content)
