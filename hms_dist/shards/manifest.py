"""manifest.json: written last, its existence means that the shard set is complete."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hms_dist.errors import UserError
from hms_dist.files import digest, sha256_of, write_json
from hms_dist.shards.schema import FORMAT_VERSION, INDEX_NAME, MANIFEST_NAME, PanelSpec, spec_from_json


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a shard set says of itself."""

    num_samples: int
    """Samples in all shards."""
    files: tuple[dict[str, Any], ...]
    """Each tar, then the index: name, num_samples, num_bytes, sha256."""
    panels: Mapping[str, PanelSpec]
    """Panels of every sample, by member name."""
    render_config: Mapping[str, Any]
    """The resolved render configuration."""
    sources: Mapping[str, Any]
    """Fingerprint of the label table and digest over those of the recordings."""
    versions: Mapping[str, str]
    """Software that made the set."""

    def to_json(self) -> dict[str, Any]:
        """The JSON value, its own digest included."""
        value: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "num_samples": self.num_samples,
            "num_shards": len(self.files) - 1,
            "files": list(self.files),
            "panels": {name: asdict(spec) for name, spec in self.panels.items()},
            "render_config": self.render_config,
            "render_config_hash": digest(self.render_config),
            "sources": self.sources,
            "versions": self.versions,
        }
        value = json.loads(json.dumps(value))
        return {**value, "digest": digest(value)}

    @property
    def fingerprint(self) -> str:
        """Digest that names this shard set: over its data files, not over when or with what it was made."""
        return digest([dict(entry) for entry in self.files])


def file_entry(path: Path, num_samples: int) -> dict[str, Any]:
    """The manifest's entry of one file."""
    return {
        "name": path.name,
        "num_samples": num_samples,
        "num_bytes": path.stat().st_size,
        "sha256": sha256_of(path),
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a finished shard set, atomically."""
    write_json(folder / MANIFEST_NAME, manifest.to_json())


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest. Raises UserError if the set is missing, unfinished, damaged or newer."""
    path = folder / MANIFEST_NAME
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        state = (
            "the set is not complete; rerun hms-dist render" if folder.is_dir() else "no such folder; check --shards"
        )
        raise UserError(f"{path}: no such file; {state}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); run hms-dist verify") from error
    if not isinstance(value, dict) or value.get("format_version") != FORMAT_VERSION:
        found = value.get("format_version") if isinstance(value, dict) else type(value).__name__
        raise UserError(f"{path}: expected format version {FORMAT_VERSION}, found {found}; render the set again")
    own = value.pop("digest", None)
    if own != digest(value):
        raise UserError(
            f"{path}: its own digest does not match; the file was changed or damaged; rerun hms-dist render"
        )
    return Manifest(
        num_samples=value["num_samples"],
        files=tuple(value["files"]),
        panels={name: spec_from_json(spec) for name, spec in value["panels"].items()},
        render_config=value["render_config"],
        sources=value["sources"],
        versions=value["versions"],
    )


def tar_names(manifest: Manifest) -> list[str]:
    """Names of the tars, in shard order."""
    return [entry["name"] for entry in manifest.files if entry["name"] != INDEX_NAME]
