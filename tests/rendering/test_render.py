"""Rendering end to end on simulated recordings: a plain, repeatable, resumable WebDataset."""

import hashlib
import json
import shutil
import tarfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import webdataset

from hms_dist.config.load import load
from hms_dist.core.errors import UserError
from hms_dist.datasets import HMS
from hms_dist.panels import DEFAULT_PANELS
from hms_dist.recordings.reader import RecordingReader
from hms_dist.rendering.render import Render, RenderConfig, run
from hms_dist.rendering.row_source import window_of
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_the_default_recipe_is_the_file(repository):
    assert load(RenderConfig, ["--config", str(repository / "configs/render/default.yaml")]) == RenderConfig()


def test_every_recipe_loads_and_states_what_it_draws(repository):
    recipes = sorted((repository / "configs/render").glob("*.yaml"))
    assert len(recipes) >= 4
    for path in recipes:
        for panel in load(RenderConfig, ["--config", str(path)]).panels.values():
            assert panel.spec.num_bytes > 0


def test_every_label_row_is_a_sample(recordings, shard_set):
    table = pd.read_csv(recordings / "train.csv")
    index = read_index(shard_set / "index.parquet")
    frame = index.frame.set_index("key").loc[[f"{e}-{s}" for e, s in table[["eeg_id", "eeg_sub_id"]].to_numpy()]]
    for column in ("eeg_id", "eeg_sub_id", "spectrogram_id", "patient_id", *HMS.vote_columns):
        assert frame[column].tolist() == table[column].tolist()
    assert read_manifest(shard_set).num_samples == len(table) == len(index)
    assert index.targets.sum(axis=1) == pytest.approx(1)


def test_webdataset_reads_the_tars_as_they_are(shard_set):
    manifest = read_manifest(shard_set)
    urls = [str(shard_set / entry["name"]) for entry in manifest.files[:-1]]
    found = {}
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        found[sample["__key__"]] = json.loads(sample["json"])
        names = {f"{name}.{spec.codec}" for name, spec in manifest.panels.items()}
        assert names <= set(sample)
    assert set(found) == set(read_index(shard_set / "index.parquet").frame["key"])


def test_the_json_member_states_how_well_channels_were_recorded(one_eeg):
    path = next((one_eeg / "train_eegs").iterdir())
    table = pq.read_table(path).to_pandas()
    start = round(pd.read_csv(one_eeg / "train.csv")["eeg_label_offset_seconds"].iloc[0] * 200)
    table.loc[start + 1000 : start + 1999, "T3"] = np.nan
    table.loc[start + 10_000 :, "T3"] = np.nan  # outside the row's 50 s
    table["EKG"] = np.float32(3)
    table.to_parquet(path)
    run(Render(data=one_eeg, out=one_eeg / "set", panels={"traces": DEFAULT_PANELS["traces"]}))
    with tarfile.open(one_eeg / "set/shard-000000.tar") as tar:
        facts = json.load(tar.extractfile(next(name for name in tar.getnames() if name.endswith(".json"))))
    assert facts["quality"]["gap"]["T3"] == 0.1
    assert facts["quality"]["flat"]["EKG"] == 1.0
    assert "EKG" not in facts["quality"]["gap"]
    assert "T3" not in facts["quality"]["flat"]


def test_members_hold_what_the_panels_draw(recordings, shard_set, rng):
    manifest, index = read_manifest(shard_set), read_index(shard_set / "index.parquet")
    for row in rng.integers(0, len(index), 3):
        fields = index.frame.iloc[row]
        recording = RecordingReader(data=recordings).read(int(fields["eeg_id"]), int(fields["spectrogram_id"]))
        window = window_of(recording, fields)
        content = (shard_set / f"shard-{fields['shard']:06d}.tar").read_bytes()
        for name, panel in DEFAULT_PANELS.items():
            offset, size = fields[f"{name}.offset"], fields[f"{name}.size"]
            stored = manifest.panels[name].decode(content[offset : offset + size])
            drawn = panel.draw(panel.prepare(recording), window)
            expected = np.packbits(drawn, axis=-1) if drawn.dtype == bool else drawn
            np.testing.assert_array_equal(stored, expected)


def test_workers_and_restarts_give_the_same_bytes(recordings, shard_set, tmp_path):
    again = tmp_path / "again"
    command = Render(data=recordings, out=again, samples_per_shard=16, workers=2)
    run(command)
    assert hashes(again) == hashes(shard_set)
    run(command)
    assert hashes(again) == hashes(shard_set)


def test_a_stopped_render_continues_where_it_stopped(recordings, shard_set, tmp_path, monkeypatch):
    out = tmp_path / "set"
    command = Render(data=recordings, out=out, samples_per_shard=16)
    real, done = RecordingReader.read, []

    def stop_in_the_second_shard(self, *ids):
        done.append(ids)
        if (out / ".parts/shard-000000.parquet").exists():
            raise KeyboardInterrupt
        return real(self, *ids)

    monkeypatch.setattr(RecordingReader, "read", stop_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        run(command)
    monkeypatch.setattr(RecordingReader, "read", real)
    assert not (out / "manifest.json").exists()
    before = (out / "shard-000000.tar").stat().st_mtime_ns
    with pytest.raises(UserError, match="not complete"):
        read_manifest(out)
    run(command)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == before
    assert hashes(out) == hashes(shard_set)


def test_a_test_folder_renders_without_votes(recordings, tmp_path):
    data = tmp_path / "data"
    table = pd.read_csv(recordings / "train.csv").drop_duplicates("eeg_id").head(3)
    for kind in ("eegs", "spectrograms"):
        (data / f"test_{kind}").mkdir(parents=True)
        for number in table[f"{kind[:-1]}_id"]:
            shutil.copy(recordings / f"train_{kind}/{number}.parquet", data / f"test_{kind}")
    table[["spectrogram_id", "eeg_id", "patient_id"]].to_csv(data / "test.csv", index=False)
    run(Render(data=data, out=tmp_path / "set", split="test"))
    index = read_index(tmp_path / "set/index.parquet")
    assert not index.labelled
    assert set(index.frame["key"]) == {f"{number}-0" for number in table["eeg_id"]}
    with pytest.raises(UserError, match="no votes"):
        _ = index.votes


@pytest.fixture
def one_eeg(recordings, tmp_path):
    """A folder with one EEG of its own, to corrupt."""
    table = pd.read_csv(recordings / "train.csv").head(1)
    for kind in ("eegs", "spectrograms"):
        (tmp_path / f"train_{kind}").mkdir()
        name = f"train_{kind}/{table[f'{kind[:-1]}_id'].iloc[0]}.parquet"
        shutil.copy(recordings / name, tmp_path / name)
    table.to_csv(tmp_path / "train.csv", index=False)
    return tmp_path


def test_a_window_beyond_the_end_names_the_row(one_eeg):
    table = pd.read_csv(one_eeg / "train.csv")
    table["eeg_label_offset_seconds"] = 600.0
    table.to_csv(one_eeg / "train.csv", index=False)
    with pytest.raises(UserError, match=r"train.csv: row 2: EEG \d+ has \d+ samples, the 50 s window needs 120000"):
        run(Render(data=one_eeg, out=one_eeg / "set"))


def test_a_missing_parquet_names_row_and_file(one_eeg):
    path = next((one_eeg / "train_eegs").iterdir())
    path.unlink()
    with pytest.raises(UserError, match=rf"train.csv: row 2: .*{path.name}: no such file"):
        run(Render(data=one_eeg, out=one_eeg / "set"))


def test_a_missing_channel_names_it(one_eeg):
    path = next((one_eeg / "train_eegs").iterdir())
    pq.write_table(pq.read_table(path).drop_columns(["Cz"]), path)
    with pytest.raises(UserError, match="Cz"):
        run(Render(data=one_eeg, out=one_eeg / "set"))


def test_another_recipe_or_table_is_not_mixed_in(one_eeg):
    run(Render(data=one_eeg, out=one_eeg / "set"))
    with pytest.raises(
        UserError, match=r"render_config.samples_per_shard: 7, was 128.*--rebuild renders 1 of 1 shards"
    ):
        run(Render(data=one_eeg, out=one_eeg / "set", samples_per_shard=7))
    table = pd.read_csv(one_eeg / "train.csv")
    table["other_vote"] += 1
    table.to_csv(one_eeg / "train.csv", index=False)
    with pytest.raises(UserError, match=r"made from other input \(table_sha256: .*, was "):
        run(Render(data=one_eeg, out=one_eeg / "set"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples_per_shard": 0}, "samples_per_shard: expected at least 1"),
        ({"panels": {}}, "panels: at least one"),
        ({"panels": {"a.b": DEFAULT_PANELS["traces"]}}, "'a.b' cannot name a member"),
        ({"panels": {"json": DEFAULT_PANELS["traces"]}}, "'json' cannot name a member"),
        ({"seed": -1}, "seed: expected 0 to"),
        ({"seed": 2**32}, "seed: expected 0 to"),
    ],
)
def test_bad_options_name_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        RenderConfig(**options)


def test_tars_carry_no_time_owner_or_machine(shard_set):
    with tarfile.open(shard_set / "shard-000000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")
