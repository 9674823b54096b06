"""Reading rows of a shard set by byte range: correct bytes, in order; damage is reported."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import webdataset

from hms_dist.core.errors import UserError
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest
from hms_dist.stream.read.reader import ShardReader

PANELS = ("traces", "kaggle_spectrogram", "eeg_spectrogram")


def open_reader(folder, panels=PANELS):
    manifest, index = read_manifest(folder), read_index(folder / "index.parquet")
    return ShardReader(folder, manifest, index, panels), manifest, index


def test_webdataset_and_the_reader_agree_on_every_byte(shard_set):
    reader, manifest, index = open_reader(shard_set)
    rows = {key: row for row, key in enumerate(index.frame["key"])}
    urls = [str(shard_set / entry["name"]) for entry in manifest.files[:-1]]
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        panels = reader.read(np.array([rows[sample["__key__"]]]))
        for name in PANELS:
            spec = manifest.panels[name]
            np.testing.assert_array_equal(panels[name][0], spec.decode(sample[f"{name}.{spec.codec}"]))


def test_rows_come_in_the_order_asked_for(shard_set, rng):
    reader, _, index = open_reader(shard_set)
    rows = rng.integers(0, len(index), 9)
    together = reader.read(rows)
    for place, row in enumerate(rows):
        for name, stored in reader.read(np.array([row])).items():
            np.testing.assert_array_equal(together[name][place], stored[0])


def test_only_the_panels_asked_for_are_read(shard_set):
    reader, _, _ = open_reader(shard_set, ["traces"])
    assert set(reader.read(np.array([0]))) == {"traces"}


def test_an_unknown_panel_lists_the_panels(shard_set):
    with pytest.raises(UserError, match=r"no panel 'scalp'; the set has eeg_spectrogram, kaggle_spectrogram, traces"):
        open_reader(shard_set, ["scalp"])


def test_a_flipped_bit_names_shard_key_and_bytes(shard_set, tmp_path, rng):
    folder = shutil.copytree(shard_set, tmp_path / "set")
    reader, _, index = open_reader(folder)
    row = int(rng.integers(len(index)))
    fields = index.frame.iloc[row]
    path = folder / f"shard-{fields['shard']:06d}.tar"
    content = bytearray(path.read_bytes())
    content[fields["traces.offset"] + fields["traces.size"] // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        reader.read(np.array([row]))
    for part in (path.name, fields["key"], str(fields["traces.offset"]), "checksum", "hms-dist verify --repair"):
        assert part in str(caught.value)


def test_damage_beyond_two_gigabytes_is_named(shard_set, monkeypatch):
    index = read_index(shard_set / "index.parquet")
    real = type(index).member
    monkeypatch.setattr(
        type(index), "member", lambda self, name: replace(real(self, name), offset=real(self, name).offset + 2**31 - 9)
    )
    reader, _, _ = open_reader(shard_set, ["traces"])
    fields = index.frame.iloc[0]
    start = int(fields["traces.offset"]) + 2**31 - 9
    expected = f"bytes {start} to {start + int(fields['traces.size'])}: checksum differs"
    assert expected in str(reader.failure(0, 0, ValueError("checksum differs")))


def test_a_missing_tar_is_named(shard_set, tmp_path):
    folder = shutil.copytree(shard_set, tmp_path / "set")
    reader, _, index = open_reader(folder)
    (folder / f"shard-{index.frame['shard'].iloc[0]:06d}.tar").unlink()
    with pytest.raises(UserError, match=r"shard-\d+\.tar: traces of .*No such file"):
        reader.read(np.array([0]))


def test_flipped_rows_get_the_flipped_panel_in_its_place(shard_set, rng):
    manifest, index = read_manifest(shard_set), read_index(shard_set / "index.parquet")
    reader = ShardReader(shard_set, manifest, index, PANELS, swaps={"traces": "traces_flipped"})
    both = ShardReader(shard_set, manifest, index, ("traces", "traces_flipped"))
    rows, flips = np.arange(8), rng.random(8) < 0.5
    found, expected = reader.read(rows, flips)["traces"], both.read(rows)
    for place, flip in enumerate(flips):
        np.testing.assert_array_equal(found[place], expected["traces_flipped" if flip else "traces"][place])
    assert set(reader.specs) == set(PANELS)
