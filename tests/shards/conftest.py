"""A shard set small enough to be checked a thousand times: made by the writer, of panels that nobody draws."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from hms_dist.core.environment import versions
from hms_dist.datasets import HMS
from hms_dist.labels.table import sample_key
from hms_dist.rendering.shard_plan import plan_shards
from hms_dist.shards.index import as_frame, read_index
from hms_dist.shards.manifest import Manifest, read_manifest, tar_names
from hms_dist.shards.metadata_writer import file_entry, write_index, write_manifest
from hms_dist.shards.schema import INDEX_NAME, JSON_MEMBER, PanelSpec, json_member, member_name
from hms_dist.shards.writer import PARTS_FOLDER, Sample, part_path, read_part, write_shard

PANELS = {
    "lines": PanelSpec(shape=(4, 16), dtype="bit", codec="npy.zst", axes=("row", "time"), unit="lit"),
    "bytes": PanelSpec(
        shape=(3, 5), dtype="uint8", codec="npy", axes=("frequency", "time"), unit="dB", value_range=(-80.0, 0.0)
    ),
    "power": PanelSpec(shape=(2, 6), dtype="float16", codec="npy", axes=("region", "time"), unit="ln(power)"),
    "ratio": PanelSpec(shape=(2, 2), dtype="float16", codec="npy.zst", axes=("region", "time"), unit="1"),
}


class TinySet:
    """A shard set and the label rows that it holds."""

    def __init__(
        self,
        folder: Path,
        rng: np.random.Generator,
        num_rows: int,
        corrupt: Callable[[Sample], Sample] = lambda sample: sample,
    ) -> None:
        self.folder, self.rng = folder, rng
        self.labels = self._table(num_rows)
        plans = plan_shards(self.labels, 4, 0)
        (folder / PARTS_FOLDER).mkdir(parents=True)
        for plan in plans:
            rows = self.labels.iloc[list(plan.tar_order)].astype(object).to_dict("records")
            write_shard(folder, plan.number, [corrupt(self._sample(values)) for values in rows], {})
        parts = [read_part(part_path(folder, plan.number)) for plan in plans]
        tables, notes = zip(*(part for part in parts if part is not None), strict=True)
        manifest = Manifest(
            num_samples=num_rows,
            files=tuple(note["file"] for note in notes),
            panels=PANELS,
            render_config={"seed": 0},
            sources={"table": {"name": "train.csv", "sha256": ""}, "split": "train"},
            versions=versions(),
        )
        for path in (folder / PARTS_FOLDER).iterdir():
            path.unlink()
        (folder / PARTS_FOLDER).rmdir()
        self._close(manifest, as_frame(pa.concat_tables(tables)))

    def respell(self, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Change rows of the index, and let the manifest name the new one: every hash fits."""
        rows = change(read_index(self.folder / INDEX_NAME).frame)
        self._close(read_manifest(self.folder), rows)

    def _close(self, manifest: Manifest, rows: pd.DataFrame) -> None:
        tars = manifest.files[: len(tar_names(manifest))]
        write_index(self.folder / INDEX_NAME, rows, [JSON_MEMBER, *PANELS], fold_seed=0)
        files = (*tars, file_entry(self.folder / INDEX_NAME, manifest.num_samples))
        write_manifest(self.folder, dataclasses.replace(manifest, files=files))

    def _table(self, num_rows: int) -> pd.DataFrame:
        eeg = np.sort(self.rng.integers(100, 100 + num_rows // 2, num_rows))
        frame = pd.DataFrame({"eeg_id": eeg, "spectrogram_id": eeg // 2 + 7000, "patient_id": eeg // 3})
        frame["eeg_sub_id"] = frame.groupby("eeg_id").cumcount()
        frame["eeg_label_offset_seconds"] = 2.0 * frame["eeg_sub_id"]
        frame["spectrogram_label_offset_seconds"] = 2.0 * frame["eeg_sub_id"] + 1
        votes = self.rng.integers(1, 9, (num_rows, len(HMS.vote_columns)))
        return frame.assign(**dict(zip(HMS.vote_columns, votes.T, strict=True))).astype(
            dict.fromkeys(HMS.vote_columns, "Int64")
        )

    def _sample(self, values: dict[str, object]) -> Sample:
        key = sample_key(values["eeg_id"], values["eeg_sub_id"])
        facts = {"key": key, **values}
        members = {JSON_MEMBER: (member_name(key, JSON_MEMBER), json_member(facts))}
        for name, spec in PANELS.items():
            drawn = self.rng.integers(0, 2, spec.shape).astype(bool if spec.dtype == "bit" else spec.dtype)
            members[name] = (member_name(key, name, spec), spec.encode(drawn))
        return Sample({**facts, "eeg_fingerprint": "10-00000000", "spectrogram_fingerprint": "20-00000000"}, members)


@pytest.fixture
def tiny(tmp_path, rng) -> TinySet:
    """A whole set of 11 rows in 3 shards."""
    return TinySet(tmp_path / "set", rng, 11)


@pytest.fixture
def make_tiny(tmp_path, rng) -> Callable[..., TinySet]:
    """Makes a set whose samples are corrupted before they are written: every hash and checksum fits."""

    def make(corrupt: Callable[[Sample], Sample]) -> TinySet:
        return TinySet(tmp_path / "corrupted", rng, 11, corrupt)

    return make
