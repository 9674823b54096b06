"""Specification of a shard set under construction, its finished shards, and the replacement of an old set by a new one.

A set is written to its own folder or, if that holds a complete set, to `.next` inside it: the old tars stay valid until
all new files are written. Then the old manifest is removed, the new files are moved in, and the new manifest comes
last.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, read_json, sealed, unsealed, write_json
from hms_dist.datasets import HMS, Dataset, dataset_of
from hms_dist.rendering.shard_plan import ShardPlan
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.schema import MANIFEST_NAME, REJECTED_NAME, PanelSpec, shard_name, spec_from_json
from hms_dist.shards.writer import PARTS_FOLDER, part_path, read_note

NEXT_FOLDER = ".next"
WORK_NAME = "work.json"
Note = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class BuildSpec:
    """Specification of a set. Two sets of equal specifications hold equal bytes, unless recordings changed."""

    render_config: Mapping[str, Any]
    """Render configuration as stored when the set was begun (`config.load.stored`)."""
    panels: Mapping[str, Any]
    """Panel specifications, as plain values."""
    table: str
    """File name of the label table."""
    table_sha256: str
    split: str
    num_shards: int
    dataset: Mapping[str, Any] | None = None
    """Description of the data set, as plain values. None: HMS, also for sets begun by versions that knew no other."""

    @property
    def note(self) -> Note:
        """Note of every finished shard, which distinguishes it from shards of another specification. Its hash is that
        of the stored configuration, so a set that is continued keeps the specification that it was begun with."""
        return {
            "render_config_hash": digest(self.render_config),
            "table_sha256": self.table_sha256,
            "split": self.split,
            **({} if self.dataset is None else {"dataset": digest(self.dataset)}),
        }

    @property
    def described(self) -> Dataset:
        """The data set of the rows."""
        return HMS if self.dataset is None else dataset_of(self.dataset, WORK_NAME)

    def differences(self, other: "BuildSpec") -> list[str]:
        """Differences that `other` would make, one line each: `render_config.panels.traces.cut: after, was before`."""
        return list(_differences(asdict(other), asdict(self), ""))


def is_complete(out: Path) -> bool:
    """Whether `out` holds a complete set."""
    return (out / MANIFEST_NAME).exists()


def build_spec_of(out: Path) -> BuildSpec | None:
    """Read the specification of the set in `out`, complete or not; None if there is none. Raises UserError if
    damaged."""
    if is_complete(out):
        manifest = read_manifest(out)
        return BuildSpec(
            render_config=manifest.render_config,
            panels=_plain_specs(manifest.panels),
            table=manifest.sources["table"]["name"],
            table_sha256=manifest.sources["table"]["sha256"],
            split=manifest.sources["split"],
            num_shards=sum(entry["name"].endswith(".tar") for entry in manifest.files),
            dataset=plain_dataset(manifest.dataset),
        )
    path = out / PARTS_FOLDER / WORK_NAME
    if not path.exists():
        return None
    try:
        build_spec = BuildSpec(**unsealed(read_json(path), path))
        specs = {name: spec_from_json(spec) for name, spec in build_spec.panels.items()}
        return replace(build_spec, panels=_plain_specs(specs))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not readable ({error}); remove {path.parent} and rerun hms-dist render") from error


def plain_dataset(dataset: Dataset) -> dict[str, Any] | None:
    """A data set as `BuildSpec` holds it."""
    return None if dataset.stored == HMS else dataset.stored.to_json()


def _plain_specs(panels: Mapping[str, PanelSpec]) -> dict[str, Any]:
    """Panel specifications as plain values, with the fields of the current version."""
    return {name: json.loads(json.dumps(asdict(spec))) for name, spec in panels.items()}


def begin(folder: Path, build_spec: BuildSpec) -> None:
    """Create the folder of a set with its specification."""
    (folder / PARTS_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(folder / PARTS_FOLDER / WORK_NAME, sealed(asdict(build_spec)))


def is_done(folder: Path, plan: ShardPlan, expected: Mapping[str, Any], *, allow_rejected: bool) -> bool:
    """Whether the shard is finished and its note has the values of `expected`."""
    note = read_note(part_path(folder, plan.number))
    if note is None or any(note.get(name) != value for name, value in expected.items()):
        return False
    if note["rejected"] and not allow_rejected:
        return False
    # A shard that a rebuild keeps unchanged is still in the surrounding complete set.
    tars = (folder / shard_name(plan.number), folder.parent / shard_name(plan.number))
    size = note["file"]["num_bytes"]
    return any(tar.is_file() and tar.stat().st_size == size for tar in tars[: 2 if folder.name == NEXT_FOLDER else 1])


def discard_build(folder: Path) -> None:
    """Remove an unfinished set: its parts and tars."""
    shutil.rmtree(folder / PARTS_FOLDER, ignore_errors=True)
    for tar in folder.glob("shard-*.tar"):
        tar.unlink()


def move_in(out: Path) -> None:
    """Replace the set in `out` by the finished one in `.next`; resumes after a kill."""
    new = out / NEXT_FOLDER
    if not (new / MANIFEST_NAME).exists():
        return
    manifest = read_manifest(new)
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    names = {entry["name"] for entry in manifest.files}
    for path in [path for path in new.iterdir() if path.is_file() and path.name != MANIFEST_NAME]:
        path.replace(out / path.name)
    for stale in [*out.glob("shard-*.tar"), out / REJECTED_NAME]:
        if stale.name not in names:
            stale.unlink(missing_ok=True)
    (new / MANIFEST_NAME).replace(out / MANIFEST_NAME)
    shutil.rmtree(new)


def _differences(now: Any, before: Any, name: str) -> Iterator[str]:
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(now.get(key, "absent"), before.get(key, "absent"), f"{name}.{key}" if name else key)
    elif json.dumps(now) != json.dumps(before):
        yield f"{name}: {_brief(now)}, was {_brief(before)}"


def _brief(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
