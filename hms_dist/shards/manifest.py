"""The manifest of a shard set: its content and origin. It is written last, so its existence means a complete set."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import canonical_json, digest, parse_json
from hms_dist.core.plugins import check_plugins
from hms_dist.core.remote import advice, is_url, join, read_bytes
from hms_dist.datasets import HMS, Dataset, dataset_of
from hms_dist.shards.manifest_values import manifest_fault
from hms_dist.shards.schema import FORMAT_VERSION, MANIFEST_NAME, PanelSpec, spec_from_json


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Description of a shard set."""

    num_samples: int
    """Number of samples in all shards."""
    files: tuple[dict[str, Any], ...]
    """Each tar, then the index: name, num_samples, num_bytes, sha256."""
    panels: Mapping[str, PanelSpec]
    """Panels of every sample, by member name."""
    render_config: Mapping[str, Any]
    """The resolved render configuration."""
    sources: Mapping[str, Any]
    """Fingerprint of the label table, and a digest of those of the recordings."""
    versions: Mapping[str, str]
    """Versions of the software that made the set."""
    dataset: Dataset = HMS
    """Classes and kind of the labels. The file of a set of HMS has no such key."""

    def to_json(self) -> dict[str, Any]:
        """Convert to a JSON value with its own digest. Keys within each part are sorted: equal sets give equal text."""
        value: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "num_samples": self.num_samples,
            "num_shards": len(tar_names(self)),
            "files": list(self.files),
            "panels": {name: asdict(spec) for name, spec in self.panels.items()},
            "render_config": self.render_config,
            "render_config_hash": digest(self.render_config),
            "sources": self.sources,
            "versions": self.versions,
            **self._dataset,
        }
        value = {name: json.loads(canonical_json(part)) for name, part in value.items()}
        return {**value, "digest": digest(value)}

    @property
    def fingerprint(self) -> str:
        """Digest that identifies this shard set: of its data files, independent of when and how it was made."""
        return digest([*(dict(entry) for entry in self.files), *self._dataset.values()])

    @property
    def _dataset(self) -> dict[str, Any]:
        return {} if self.dataset == HMS else {"dataset": self.dataset.to_json()}


def read_manifest(location: Path | str, name: str = MANIFEST_NAME) -> Manifest:
    """Read and check a manifest, or its copy. Raises UserError if the set is missing, unfinished, damaged or newer."""
    path, content = join(location, name), b""
    if not str(location):
        raise UserError("shards: expected the folder or URL of a shard set, found an empty name; check --shards")
    try:
        content = read_bytes(path, limits.JSON_BYTES)
        value = parse_json(content)
    except FileNotFoundError as error:
        unfinished = is_url(location) or Path(location).is_dir()
        state = (
            "the set is not complete; rerun hms-dist render, or check the path"
            if unfinished
            else "no such folder; check --shards"
        )
        raise UserError(f"{path}: no such file; {state}") from error
    except NotADirectoryError as error:
        raise UserError(f"{location}: is a file, expected the folder of a shard set; check the path") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {advice(location, error, content)}") from error
    if not isinstance(value, dict) or value.get("format_version") != FORMAT_VERSION:
        found = value.get("format_version") if isinstance(value, dict) else type(value).__name__
        raise UserError(f"{path}: expected format version {FORMAT_VERSION}, found {found}; render the set again")
    own = value.pop("digest", None)
    try:
        known = digest(value)
    except ValueError:  # a number beyond float64
        known = ""
    if own != known:
        raise UserError(f"{path}: its own digest does not match; the file was changed or damaged; {advice(location)}")
    fault = manifest_fault(value)
    if fault:
        raise UserError(f"{path}: {fault}; the set was not made by hms-dist render; render it again")
    check_plugins(value["render_config"].get("plugins"), str(path))
    return Manifest(
        num_samples=value["num_samples"],
        files=tuple(value["files"]),
        panels={name: spec_from_json(spec) for name, spec in value["panels"].items()},
        render_config=value["render_config"],
        sources=value["sources"],
        versions=value["versions"],
        dataset=dataset_of(value["dataset"], str(path)) if "dataset" in value else HMS,
    )


def tar_names(manifest: Manifest) -> list[str]:
    """Names of the tars, in shard order."""
    return [entry["name"] for entry in manifest.files if entry["name"].endswith(".tar")]
