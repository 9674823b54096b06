"""Index rows read back from a tar: what its members say of themselves, and where they lie."""

import json
import tarfile
from pathlib import Path
from typing import Any

from hms_dist.shards.schema import JSON_MEMBER, crc32


def rows_of_tar(path: Path, number: int) -> list[dict[str, Any]]:
    """Index fields of each sample of shard `number`, in the order of the tar; all but the fingerprints and folds."""
    rows: dict[str, dict[str, Any]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            key, _, rest = info.name.partition(".")
            member = rest.partition(".")[0]
            file = tar.extractfile(info)
            content = file.read() if file else b""
            row = rows.setdefault(key, {"shard": number})
            row |= {f"{member}.offset": info.offset_data, f"{member}.size": info.size}
            row[f"{member}.crc32"] = crc32(content)
            if member == JSON_MEMBER:
                row |= json.loads(content)
    return list(rows.values())
