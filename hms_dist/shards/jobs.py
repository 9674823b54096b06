"""The life of a shard set: which shards are done, and turning finished shards into a complete set."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hms_dist.errors import UserError
from hms_dist.files import digest
from hms_dist.run import LOG, versions
from hms_dist.shards.index import Manifest, read_manifest
from hms_dist.shards.manifest import file_entry, write_index, write_manifest
from hms_dist.shards.plan import ShardPlan
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, MANIFEST_NAME, PanelSpec
from hms_dist.shards.writer import PARTS_FOLDER, part_path, read_part, shard_name

Note = Mapping[str, str]
"""What decides the bytes of a set: render_config_hash, table_sha256, split."""
_NAMES = {"render_config_hash": "render configuration", "table_sha256": "label table", "split": "split"}


def already_complete(out: Path, note: Note) -> bool:
    """True if `out` is a complete set of this very work; UserError if it is one of another."""
    if not (out / MANIFEST_NAME).exists():
        return False
    manifest = read_manifest(out)
    table = manifest.sources["table"]
    found = {
        "render_config_hash": digest(manifest.render_config),
        "table_sha256": table["sha256"],
        "split": manifest.sources["split"],
    }
    _refuse_other(out, found, note)
    return True


def is_done(out: Path, plan: ShardPlan, note: Note) -> bool:
    """True if the shard stands finished; UserError if it was made by other work."""
    part = read_part(part_path(out, plan.number))
    if part is None:
        return False
    _refuse_other(out, part[1], note)
    tar = out / shard_name(plan.number)
    return tar.is_file() and tar.stat().st_size == part[1]["file"]["num_bytes"]


def finish(
    out: Path,
    plans: Sequence[ShardPlan],
    *,
    note: Note,
    panels: Mapping[str, PanelSpec],
    render_config: Mapping[str, Any],
    table: Path,
) -> Manifest:
    """Write the index, then the manifest, from the parts of all shards; remove the parts."""
    parts = [read_part(part_path(out, plan.number)) for plan in plans]
    done = [part for part in parts if part is not None]
    if len(done) < len(plans):
        raise UserError(f"{out}: {len(plans) - len(done)} shards are missing; rerun hms-dist render")
    rows = pd.concat([frame for frame, _ in done], ignore_index=True)
    index_path = out / INDEX_NAME
    write_index(index_path, rows, [JSON_MEMBER, *panels])
    fingerprints = sorted({*rows["eeg_fingerprint"], *rows["spectrogram_fingerprint"]})
    manifest = Manifest(
        num_samples=len(rows),
        files=(*(part_note["file"] for _, part_note in done), file_entry(index_path, len(rows))),
        panels=panels,
        render_config=render_config,
        sources={
            "table": {"name": table.name, "sha256": note["table_sha256"]},
            "split": note["split"],
            "num_recordings": int(rows["eeg_id"].nunique()),
            "recordings_digest": digest(fingerprints),
        },
        versions=versions(),
    )
    write_manifest(out, manifest)
    shutil.rmtree(out / PARTS_FOLDER)
    LOG.info(
        "%s: %d samples in %d shards, %.1f MB",
        out, len(rows), len(done), sum(entry["num_bytes"] for entry in manifest.files) / 1e6,
    )  # fmt: skip
    return manifest


def _refuse_other(out: Path, found: Mapping[str, Any], wanted: Note) -> None:
    different = [_NAMES[name] for name in wanted if found.get(name) != wanted[name]]
    if different:
        raise UserError(
            f"{out}: holds shards made with another {' and '.join(different)}; "
            "choose another --out or remove the folder"
        )
