"""Repair restores a set byte for byte, whichever of its files were damaged."""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.core.files import digest
from hms_dist.jobs.lease import acquire
from hms_dist.rendering.render import Render
from hms_dist.rendering.render import run as render
from hms_dist.rendering.verify import Verify
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.metadata_writer import write_manifest


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def delete(path: Path, _: np.random.Generator) -> None:
    path.unlink()


def cut(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for place in rng.integers(0, len(content), 3):
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


@pytest.fixture(scope="module")
def data(tmp_path_factory, recordings):
    """A few recordings, one of which cannot be read, so that rows are rejected."""
    folder = tmp_path_factory.mktemp("repair") / "data"
    table = pd.read_csv(recordings / "train.csv")
    table = table[table["eeg_id"].isin(table["eeg_id"].unique()[:3])]
    for kind in ("eegs", "spectrograms"):
        (folder / f"train_{kind}").mkdir(parents=True)
        for number in table[f"{kind[:-1]}_id"].unique():
            shutil.copy(recordings / f"train_{kind}/{number}.parquet", folder / f"train_{kind}")
    (folder / f"train_eegs/{table['eeg_id'].iloc[-1]}.parquet").write_bytes(b"")
    table.to_csv(folder / "train.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair") / "set"
    render(Render(data=data, out=folder, samples_per_shard=4, on_error="skip", max_rejected_share=1))
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def verify(folder, *words):
    return main(["verify", "--shards", str(folder), *words])


def test_the_set_has_every_kind_of_file(whole, data, capsys):
    assert {"shard-000000.tar", "index.parquet", "manifest.json", "manifest.copy.json", "rejected.parquet"} <= set(
        hashes(whole)
    )
    assert verify(whole, "--data", str(data)) == 0
    assert "no fault (labels as in the table)" in capsys.readouterr().out
    assert verify(whole) == 0
    assert "labels not compared" in capsys.readouterr().out


@pytest.mark.parametrize("damage", [delete, cut, flip])
@pytest.mark.parametrize(
    "name", ["shard-000000.tar", "index.parquet", "manifest.json", "manifest.copy.json", "rejected.parquet"]
)
def test_any_file_is_restored(whole, copy, data, name, damage, capsys, rng):
    damage(copy / name, rng)
    assert verify(copy) == 2
    out = capsys.readouterr()
    assert out.out.startswith(f"{copy / name}: ")
    assert "1 faults; --repair --data DIR rebuilds damaged files" in out.err
    assert verify(copy, "--repair", "--data", str(data)) == 0
    assert hashes(copy) == hashes(whole)


def test_everything_but_the_manifest_copy_is_lost(whole, copy, data):
    for path in copy.iterdir():
        if path.name != "manifest.copy.json":
            path.unlink()
    assert verify(copy, "--repair", "--data", str(data), "--workers", "2") == 0
    assert hashes(copy) == hashes(whole)


def test_other_files_are_reported_and_left_in_place(copy, data, capsys, caplog, rng):
    (copy / "notes.txt").write_text("mine")
    (copy / "shard-000099.tar").write_text("mine")
    flip(copy / "shard-000000.tar", rng)
    caplog.set_level("WARNING", "hms_dist")
    assert verify(copy, "--repair", "--data", str(data)) == 2
    assert "notes.txt: not part of this set; left in place" in capsys.readouterr().err
    assert (copy / "notes.txt").read_text() == (copy / "shard-000099.tar").read_text() == "mine"
    (copy / "shard-000099.tar").unlink()
    assert verify(copy) == 0


def test_a_killed_repair_leaves_nothing_in_the_way(whole, copy, data, rng):
    (copy / ".repair/.parts").mkdir(parents=True)
    (copy / ".repair/shard-000000.tar").write_text("half")
    cut(copy / "shard-000000.tar", rng)
    assert verify(copy, "--repair", "--data", str(data)) == 0
    assert hashes(copy) == hashes(whole)


def test_a_second_repair_is_refused(copy, data, capsys, rng):
    cut(copy / "index.parquet", rng)
    with acquire(copy / ".repair.claim"):
        assert verify(copy, "--repair", "--data", str(data)) == 2
    assert "is being repaired already (process" in capsys.readouterr().err


def test_a_folder_in_place_of_a_file_is_not_removed(copy, data, capsys):
    (copy / "shard-000000.tar").unlink()
    (copy / "shard-000000.tar").mkdir()
    assert verify(copy, "--repair", "--data", str(data)) == 2
    assert "shard-000000.tar: rebuilt, but not restored; a folder is in its place" in capsys.readouterr().out


class TestWhatCannotBeMadeAgain:
    """The old file stays, and the line gives the reason."""

    @pytest.fixture
    def other(self, data, tmp_path):
        return Path(shutil.copytree(data, tmp_path / "data"))

    def reason(self, folder, other, capsys, rng):
        cut(folder / "shard-000000.tar", rng)
        before = hashes(folder)
        assert verify(folder, "--repair", "--data", str(other)) == 2
        assert hashes(folder) == before
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if "rebuilt" in line]
        return line.removeprefix(f"{folder / 'shard-000000.tar'}: rebuilt, but not restored; ")

    def test_another_table(self, copy, other, capsys, rng):
        table = pd.read_csv(other / "train.csv")
        table["other_vote"] += 1
        table.to_csv(other / "train.csv", index=False)
        assert self.reason(copy, other, capsys, rng) == f"{other / 'train.csv'} is not the table of this set"

    def test_a_lost_recording(self, copy, other, capsys, rng):
        for path in (other / "train_eegs").iterdir():
            path.unlink()
        assert "no such file; the label table names it" in self.reason(copy, other, capsys, rng)

    def test_other_software(self, copy, other, capsys, rng):
        self.change_first_eeg(other)
        manifest = read_manifest(copy)
        write_manifest(copy, dataclasses.replace(manifest, versions={**manifest.versions, "numpy": "1.0"}))
        reason = self.reason(copy, other, capsys, rng)
        assert reason == f"software differs: numpy is {np.__version__}, was 1.0"

    def test_other_recordings(self, copy, other, capsys, rng):
        self.change_first_eeg(other)
        assert self.reason(copy, other, capsys, rng).startswith(f"recordings in {other} have changed")

    @staticmethod
    def change_first_eeg(other):
        for path in (other / "train_eegs").iterdir():
            if path.stat().st_size:
                eeg = pd.read_parquet(path)
                eeg["Cz"] = -eeg["Cz"] + 1
                eeg.to_parquet(path)


def test_without_any_manifest_it_is_an_error(copy, data, capsys):
    for name in ("manifest.json", "manifest.copy.json"):
        value = json.loads((copy / name).read_text())
        value["num_samples"] += 1
        (copy / name).write_text(json.dumps(value))
    assert value["digest"] != digest(value)
    assert verify(copy, "--repair", "--data", str(data)) == 2
    assert "manifest.json: its own digest does not match" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repair": True}, "data: needed to repair"),
        ({"table": Path("x.csv")}, "data: needed to repair"),
        ({"fast": True, "data": Path("x")}, "fast: looks at sizes and counts only"),
        ({"workers": 0}, "workers: expected at least 1, found 0"),
    ],
)
def test_options_that_do_not_go_together(options, message):
    with pytest.raises(ValueError, match=message):
        Verify(shards=Path("set"), **options)
