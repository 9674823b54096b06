"""Recovery of index rows from a tar: the values in its members, and their positions."""

import tarfile
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.core.files import open_file, parse_json
from hms_dist.shards.schema import JSON_MEMBER, crc32


def rows_of_tar(path: Path, number: int) -> list[dict[str, Any]]:
    """Index fields of each sample of shard `number`, in tar order; all but the fingerprints and folds.

    Raises UserError for a tar that is not a shard.
    """
    rows: dict[str, dict[str, Any]] = {}
    with open_file(path) as opened, tarfile.open(fileobj=opened, mode="r:") as tar:  # no decompression
        for info in tar:
            if not info.isreg() or info.issparse():
                raise UserError(
                    f"{path}: member {info.name[:100]!r} is not a regular file; not a shard; render it again"
                )
            key, _, rest = info.name.partition(".")
            member = rest.partition(".")[0]
            file = tar.extractfile(info)
            content = file.read() if file else b""
            row = rows.setdefault(key, {"shard": number})
            row |= {f"{member}.offset": info.offset_data, f"{member}.size": info.size}
            row[f"{member}.crc32"] = crc32(content)
            if member == JSON_MEMBER:
                row |= parse_json(content)
    return list(rows.values())
