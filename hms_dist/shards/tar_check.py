"""Check of one tar: the file, its layout byte for byte, and every member's name, position, checksum and values."""

import mmap
import tarfile
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hms_dist.core.files import open_file, parse_json
from hms_dist.datasets import HMS, Dataset
from hms_dist.jobs.worker_processes import check_stop
from hms_dist.labels.table import row_columns
from hms_dist.shards.fault import Fault, file_fault
from hms_dist.shards.schema import JSON_MEMBER, PanelSpec, crc32, json_member, member_name, member_order
from hms_dist.shards.writer import member_info

GAP_UNITS = ("ln(power)",)
"""Units of the float16 panels that mark gaps as NaN and zero power as -inf; all others hold finite values only."""


@dataclass(frozen=True)
class TarTask:
    """A tar to check."""

    folder: Path
    entry: Mapping[str, Any]
    """Its manifest entry: name, num_samples, num_bytes, sha256."""
    panels: Mapping[str, PanelSpec]
    rows: pd.DataFrame | None
    """Index rows of its samples; None: the index is damaged, and only the file as a whole can be checked."""
    dataset: Dataset = HMS


def tar_faults(task: TarTask) -> list[Fault]:
    """Find all faults of a tar; of a damaged file, only that it is damaged. Raises Stopped between members on
    request."""
    damage = file_fault(task.folder, task.entry)
    if damage:
        return [damage]
    if task.rows is None:
        return []
    path = task.folder / task.entry["name"]
    with (
        open_file(path) as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
        memoryview(mapped) as content,
    ):
        return [Fault(path, text) for text in content_faults(content, task.rows, task.panels, task.dataset)]


def content_faults(
    content: memoryview, rows: pd.DataFrame, panels: Mapping[str, PanelSpec], dataset: Dataset = HMS
) -> Iterator[str]:
    """Find the faults inside a tar whose samples are the index rows `rows`.

    The layout is compared block by block with the writer's output for these names and sizes, in this order. The check
    ends at the first difference, because nothing after it would match.
    """
    end = 0
    for values in rows.to_dict("records"):
        check_stop()
        for member in member_order([JSON_MEMBER, *panels]):
            spec = panels.get(member)
            name = member_name(values["key"], member, spec)
            offset, size = values[f"{member}.offset"], values[f"{member}.size"]
            header = member_info(name, size).tobuf(tarfile.USTAR_FORMAT)
            if offset != end + len(header) or content[end:offset] != header:
                yield f"{name} is not at bytes {offset} to {offset + size}, where the index has it"
                return
            end = -(-(offset + size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
            text = _member_fault(content[offset : offset + size], values, member, spec, dataset)
            if text:
                yield f"{name} {text}"
            if not _is_empty(content[offset + size : end]):
                yield f"{name} is followed by something before the next block"
    # Two empty blocks end a tar, and more fill its last record.
    length = -(-(end + 2 * tarfile.BLOCKSIZE) // tarfile.RECORDSIZE) * tarfile.RECORDSIZE
    if len(content) != length or not _is_empty(content[end:]):
        yield f"unexpected data after byte {end}, where the last sample of the index ends"


def _is_empty(block: memoryview) -> bool:
    return block == bytes(len(block))


def _member_fault(
    block: memoryview, values: Mapping[Hashable, Any], member: str, spec: PanelSpec | None, dataset: Dataset
) -> str | None:
    if crc32(block) != values[f"{member}.crc32"]:
        return "has another CRC-32 than in the index"
    try:
        return json_fault(bytes(block), values, dataset) if spec is None else value_fault(spec, spec.decode(block))
    except ValueError as error:
        return f"cannot be decoded ({error})"


def json_fault(block: bytes, values: Mapping[Hashable, Any], dataset: Dataset = HMS) -> str | None:
    """Compare a json member with its index row; return the first difference. Raises ValueError if it is not JSON."""
    facts = parse_json(block)
    if not isinstance(facts, dict) or json_member(facts) != block:
        return "is not written as this program writes it"
    for name in ("key", *row_columns(dataset)):
        wanted = None if pd.isna(values[name]) else values[name]
        if name not in facts or facts[name] != wanted:
            return f"has {name} {facts.get(name)}, the index {wanted}"
    return None


def value_fault(spec: PanelSpec, stored: np.ndarray) -> str | None:
    """Return the fault of the values of a decoded panel [*stored_shape], else None. Every uint8 is valid; float16 has
    rules about infinities."""
    if spec.dtype != "float16":
        return None
    if np.isposinf(stored).any():
        return "holds +inf, which no panel may"
    if spec.unit not in GAP_UNITS and not np.isfinite(stored).all():
        return f"holds NaN or -inf, which a panel in {spec.unit} may not"
    return None
