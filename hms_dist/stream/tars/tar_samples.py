"""Samples of whole tars: each tar is read at once and compared with the manifest, before any of it is believed.

A tar by itself holds no checksums of its members, and webdataset cannot tell a tar that was cut off between two members
from a short one. Reading it whole (some 50 MB) also lets a failed transfer be repeated without samples coming twice.
"""

import hashlib
import io
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing
from typing import Any

from webdataset.gopen import gopen
from webdataset.tariterators import group_by_keys, tar_file_expander

from hms_dist.errors import UserError
from hms_dist.remote import Patience
from hms_dist.stream.tars.deal import Tar

Sample = dict[str, Any]
"""One sample of a tar: member -> bytes, `__key__`, `__url__`, and `row`, its number in the shard set."""


def read_samples(
    tars: Iterable[Tar], *, members: Collection[str], wanted: Collection[int] | None, patience: Patience
) -> Iterator[Sample]:
    """The wanted samples (by row; None: all) of the tars, with their `members` (`json`, `traces.npy.zst`).

    Raises UserError naming a tar that cannot be read, or is not the one that the manifest describes.
    """
    for tar in tars:
        source = {"url": tar.url, "stream": io.BytesIO(read_tar(tar, patience))}
        files = tar_file_expander([source])
        for place, sample in enumerate(group_by_keys(files, lcase=False, suffixes=set(members))):
            row = tar.first_row + place
            if wanted is None or row in wanted:
                yield {**sample, "row": row}


def read_tar(tar: Tar, patience: Patience) -> bytes:
    """All bytes of a tar, exactly those that the manifest describes. Raises UserError naming it otherwise."""
    try:
        content = patience.retried(lambda: _fetch(tar.url))
    except (OSError, ValueError) as error:
        raise UserError(f"{tar.url}: cannot be read ({error}); check the URL and its rights") from error
    if len(content) != tar.num_bytes:
        raise UserError(
            f"{tar.url}: expected {tar.num_bytes} bytes, found {len(content)}; cut off, or of another set than the "
            "manifest; copy it again, or run hms-dist verify"
        )
    if hashlib.sha256(content).hexdigest() != tar.sha256:
        raise UserError(
            f"{tar.url}: not the bytes that the manifest names; damaged, or of another set; copy it again, or run "
            "hms-dist verify"
        )
    return content


def _fetch(url: str) -> bytes:
    """What webdataset opens at a URL; a command that fails is an OSError."""
    with closing(gopen(url)) as stream:
        content: bytes = stream.read()
    return content
