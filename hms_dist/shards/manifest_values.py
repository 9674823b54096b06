"""Checks of the values of a manifest whose digest matches: one from elsewhere may be consistent and still invalid.

After these checks all file names have the fixed form, so that none can leave the folder or end up in a command, and all
sizes are possible.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hms_dist.core import limits
from hms_dist.shards.schema import INDEX_NAME, REJECTED_NAME, is_member_name, shard_name

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TABLE_NAME = re.compile(r"[^/\x00-\x1f]{1,255}")
MOST_SAMPLES = 2**31 - 1


def manifest_fault(value: Mapping[str, Any]) -> str | None:
    """Return the first fault of a manifest's JSON value, else None."""
    return next(_faults(value), None)


def _faults(value: Mapping[str, Any]) -> Iterator[str]:
    for name, kind in (("files", list), ("panels", dict), ("render_config", dict), ("sources", dict)):
        if not isinstance(value.get(name), kind):
            yield f"{name}: expected {'a list' if kind is list else 'an object'}, found {_brief(value.get(name))}"
            return
    for name in ("num_samples", "num_shards"):
        if not _is_whole(value.get(name), MOST_SAMPLES):
            yield f"{name}: expected an integer, found {_brief(value.get(name))}"
            return
    yield from _file_faults(value["files"], value["num_shards"])
    counted = sum(entry["num_samples"] for entry in value["files"][: value["num_shards"]])
    if not counted == value["num_samples"] == value["files"][value["num_shards"]]["num_samples"]:
        yield f"num_samples: expected {counted}, as its shards have, found {value['num_samples']}"
    yield from _panel_faults(value["panels"])
    yield from _source_faults(value["sources"])
    versions = value.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(version, str) for version in versions.values()):
        yield f"versions: expected texts, found {_brief(versions)}"
    if not isinstance(value["render_config"].get("panels", {}), dict):
        yield f"render_config: expected panels, found {_brief(value['render_config']['panels'])}"
    if not _is_whole(value["render_config"].get("seed"), 2**32 - 1):
        yield f"render_config: expected a seed, found {_brief(value['render_config'].get('seed'))}"


def _file_faults(files: list[Any], num_shards: int) -> Iterator[str]:
    if len(files) not in (num_shards + 1, num_shards + 2):
        yield f"files: expected {num_shards} shards and {INDEX_NAME}, found {len(files)} entries"
        return
    names = [*map(shard_name, range(num_shards)), INDEX_NAME, REJECTED_NAME]
    for entry, name in zip(files, names, strict=False):
        if not isinstance(entry, dict) or entry.get("name") != name:
            found = entry.get("name") if isinstance(entry, dict) else entry
            yield f"files: expected {name}, found {_brief(found)}"
            return
        largest = limits.TAR_BYTES if name.endswith(".tar") else limits.PARQUET_BYTES
        if not _is_whole(entry.get("num_bytes"), largest) or not _is_whole(entry.get("num_samples"), MOST_SAMPLES):
            yield f"files: {name}: expected integers of samples and bytes, found {_brief(entry)}"
            return
        if not isinstance(entry.get("sha256"), str) or not _SHA256.fullmatch(entry["sha256"]):
            yield f"files: {name}: expected a SHA-256, found {_brief(entry.get('sha256'))}"
            return
        if name.endswith(".tar") and entry["num_samples"] * 1024 > entry["num_bytes"]:
            yield f"files: {name}: {entry['num_samples']} samples do not fit into {entry['num_bytes']} bytes"
            return


def _panel_faults(panels: Mapping[str, Any]) -> Iterator[str]:
    if not 1 <= len(panels) <= limits.NUM_PANELS:
        yield f"panels: expected 1 to {limits.NUM_PANELS}, found {len(panels)}"
    for name, spec in panels.items():
        if not is_member_name(name):
            yield f"panels: {_brief(name)} cannot name a member"
        elif not isinstance(spec, dict):
            yield f"panels: {name}: expected an object, found {_brief(spec)}"


def _source_faults(sources: Mapping[str, Any]) -> Iterator[str]:
    table = sources.get("table")
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        yield f"sources: expected a table, found {_brief(table)}"
    elif not _TABLE_NAME.fullmatch(table["name"]) or not isinstance(table.get("sha256"), str):
        yield f"sources: expected a file name and a SHA-256 of the table, found {_brief(table)}"
    if sources.get("split") not in ("train", "test"):
        yield f"sources: expected a split, train or test, found {_brief(sources.get('split'))}"


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
