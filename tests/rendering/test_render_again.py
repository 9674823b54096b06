"""The shard factory again: after bad rows, changed recordings and recipes, on full disks and awkward paths."""

import hashlib
import os
import shutil
import subprocess
import sys
import time

import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.jobs import lease
from hms_dist.labels.table import read_labels
from hms_dist.panels.kaggle_spectrogram import KaggleSpectrogram
from hms_dist.rendering.find_faults import find_faults
from hms_dist.rendering.render import Render, run
from hms_dist.shards.index import read_index
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.writer import lease_path


def hashes(folder, pattern="*"):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob(pattern) if p.is_file()}


def words(data, out):
    return [sys.executable, "-m", "hms_dist", "render", "--data", str(data), "--out", str(out),
            "--samples_per_shard", "16"]  # fmt: skip


@pytest.fixture(scope="module")
def larger_shards(recordings, tmp_path_factory):
    """The set of other, larger shards; it is only read."""
    out = tmp_path_factory.mktemp("larger") / "set"
    run(Render(data=recordings, out=out, samples_per_shard=24))
    return out


@pytest.fixture
def made(shard_set, tmp_path):
    """A copy of the finished set, as a render of the same recordings makes it."""
    return shutil.copytree(shard_set, tmp_path / "set")


class TestBadRows:
    """Rows that cannot be rendered."""

    @pytest.fixture
    def corrupted(self, recordings, tmp_path):
        """A copy in which one EEG is cut short: all its rows are bad."""
        data = shutil.copytree(recordings, tmp_path / "data")
        table = pd.read_csv(data / "train.csv")
        number = table["eeg_id"].iloc[-1]
        (data / f"train_eegs/{number}.parquet").write_bytes(b"PAR1 but no more")
        return data, table[table["eeg_id"] == number]

    def test_fail_names_every_bad_row_and_continues_after_it(self, recordings, shard_set, corrupted, tmp_path, caplog):
        data, bad = corrupted
        with pytest.raises(UserError, match=r"train.csv: row \d+: .*parquet"):
            run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) <= len(bad)
        shutil.copy(recordings / f"train_eegs/{bad['eeg_id'].iloc[0]}.parquet", data / "train_eegs")
        run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        assert hashes(tmp_path / "set") == hashes(shard_set)

    def test_skip_keeps_account_of_them(self, corrupted, tmp_path):
        data, bad = corrupted
        out = tmp_path / "set"
        run(Render(data=data, out=out, samples_per_shard=16, on_error="skip", max_rejected_share=0.5))
        rejected = pd.read_parquet(out / "rejected.parquet")
        assert set(rejected["key"]) == {f"{e}-{s}" for e, s in bad[["eeg_id", "eeg_sub_id"]].to_numpy()}
        assert set(rejected["row"]) == set(bad.index)
        assert all(".parquet" in reason for reason in rejected["reason"])
        manifest = read_manifest(out)
        assert manifest.sources["num_rejected"] == len(bad)
        assert manifest.num_samples == len(pd.read_csv(data / "train.csv")) - len(bad)
        assert not set(read_index(out / "index.parquet").frame["key"]) & set(rejected["key"])
        assert list(find_faults(out)) == []

    def test_too_many_fail_all_the_same(self, corrupted, tmp_path):
        for _ in range(2):  # a second run finds their shards made
            with pytest.raises(UserError, match=r"rows rejected, more than max_rejected_share 0.01; the first: "):
                run(Render(data=corrupted[0], out=tmp_path / "set", samples_per_shard=16, on_error="skip"))
            assert not (tmp_path / "set/manifest.json").exists()

    @pytest.mark.parametrize(
        ("on_error", "message"), [("fail", r"row \d+: .*parquet"), ("skip", "more than max_rejected_share")]
    )
    def test_they_count_in_shards_of_dead_owners_too(self, corrupted, tmp_path, monkeypatch, on_error, message):
        monkeypatch.setattr(lease, "DEAD_AFTER_S", 3.0)
        out = tmp_path / "set"
        (out / ".parts").mkdir(parents=True)
        for number in range(-(-len(pd.read_csv(corrupted[0] / "train.csv")) // 16)):
            lease_path(out, number).write_text('{"host": "n7", "machine": "x", "pid": 1, "job": "", "nonce": "n"}')
        with pytest.raises(UserError, match=message):
            run(Render(data=corrupted[0], out=out, samples_per_shard=16, on_error=on_error))
        assert not (out / "manifest.json").exists()


def test_what_makes_a_set_useless_or_leaky_is_reported(recordings, tmp_path, caplog):
    table = pd.read_csv(recordings / "train.csv")
    other = table.index[table["patient_id"] != table["patient_id"][0]][0]
    table.loc[other, ["spectrogram_id", "spectrogram_label_offset_seconds"]] = table["spectrogram_id"][0], 0
    table.rename(columns=lambda name: name.replace("_vote", "_votes")).to_csv(tmp_path / "misspelt.csv", index=False)
    panels = {"spectrogram": KaggleSpectrogram()}
    run(Render(data=recordings, out=tmp_path / "set", table=tmp_path / "misspelt.csv", panels=panels))
    assert "misspelt.csv has no column of votes (seizure_vote, " in caplog.text
    number = table["spectrogram_id"][0]
    assert f"misspelt.csv: 1 spectrograms are of several patients each ({number} for one)" in caplog.text


def test_a_complete_set_with_a_file_missing_is_not_taken_on_faith(recordings, shard_set, tmp_path):
    out = shutil.copytree(shard_set, tmp_path / "set")
    (out / "shard-000001.tar").unlink()
    with pytest.raises(UserError, match=r"shard-000001\.tar: missing.*; run hms-dist verify --repair"):
        run(Render(data=recordings, out=out, samples_per_shard=16))


class TestRebuild:
    """Another recipe, another recording."""

    @pytest.fixture
    def data(self, recordings, tmp_path):
        return shutil.copytree(recordings, tmp_path / "data")

    def test_a_changed_recording_redoes_its_shards_only(self, data, shard_set, made, tmp_path):
        out = made
        command = {"data": data, "out": out, "samples_per_shard": 16}
        table = pd.read_csv(data / "train.csv")
        target = table["eeg_id"].unique()[1]
        long = data / f"train_eegs/{target}.parquet"
        frame = pd.read_parquet(long)
        frame["Cz"] *= 3
        frame.to_parquet(long, index=False)
        with pytest.raises(
            UserError, match=r"recordings of \d of \d shards\); --rebuild renders \d of \d shards again"
        ):
            run(Render(**command))
        assert hashes(out) == hashes(shard_set)
        before = hashes(out, "*.tar")
        run(Render(**command, rebuild=True))
        after = hashes(out, "*.tar")
        index = read_index(out / "index.parquet")
        touched = set(index.ids("shard")[index.ids("eeg_id") == target])
        assert {name for name in after if after[name] != before[name]} == {f"shard-{n:06d}.tar" for n in touched}
        run(Render(data=data, out=tmp_path / "fresh", samples_per_shard=16))
        assert hashes(out) == hashes(tmp_path / "fresh")

    def test_a_touched_but_equal_recording_is_no_change(self, data, shard_set, made):
        for path in (data / "train_eegs").iterdir():
            os.utime(path, (time.time() + 100, time.time() + 100))
        run(Render(data=data, out=made, samples_per_shard=16))
        assert hashes(made) == hashes(shard_set)

    def test_old_tars_stay_valid_until_the_new_set_is_complete(self, data, made, larger_shards):
        out = made
        before = hashes(out)
        run(Render(data=data, out=out, samples_per_shard=24, rebuild=True, job="0/2"))
        assert hashes(out) == before
        assert list(find_faults(out)) == []
        run(Render(data=data, out=out, samples_per_shard=24, rebuild=True, job="1/2"))
        assert hashes(out) == hashes(larger_shards)
        assert not (out / ".next").exists()

    @pytest.mark.parametrize("moved", [0, 1, 3])
    def test_a_move_cut_short_continues(self, data, made, larger_shards, moved, monkeypatch):
        from hms_dist.rendering import build_spec as sets

        out = made
        real, done = type(out).replace, []

        def stop(self, target):
            if self.parent.name == ".next" and target.parent == out:
                done.append(target)
                if len(done) > moved:
                    raise KeyboardInterrupt
            return real(self, target)

        monkeypatch.setattr(type(out), "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            run(Render(data=data, out=out, samples_per_shard=24, rebuild=True))
        monkeypatch.setattr(type(out), "replace", real)
        assert not sets.is_complete(out)
        if moved == 1:
            assert main(["finish", "--out", str(out)]) == 0
        else:
            run(Render(data=data, out=out, samples_per_shard=24))
        assert hashes(out) == hashes(larger_shards)


@pytest.mark.parametrize("is_rebuild", [False, True])
@pytest.mark.parametrize("left", [0, 1])
def test_finish_continues_where_the_removal_of_parts_was_cut_short(
    recordings, made, larger_shards, tmp_path, monkeypatch, is_rebuild, left
):
    out = made if is_rebuild else tmp_path / "new"

    def cut(folder, **_):
        for path in list(folder.iterdir())[left:]:
            path.unlink()
        if not left:
            folder.rmdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hms_dist.rendering.finish.shutil.rmtree", cut)
        with pytest.raises(KeyboardInterrupt):
            run(Render(data=recordings, out=out, samples_per_shard=24, rebuild=is_rebuild))
    assert main(["finish", "--out", str(out)]) == 0
    assert hashes(out) == hashes(larger_shards)
    assert [path.name for path in out.iterdir() if path.is_dir()] == []
    assert main(["finish", "--out", str(out)]) == 0


class TestResources:
    """Disks and paths."""

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
    def test_a_full_disk_is_reported_and_a_rerun_continues(self, recordings, shard_set, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=9m", "tmpfs", str(disk)], check=False).returncode:
            pytest.skip("this machine mounts no tmpfs")
        try:
            done = subprocess.run(words(recordings, disk / "set"), capture_output=True, text=True, check=False)
            assert done.returncode == 1, done.stderr
            assert done.stderr.splitlines()[-1].endswith(
                "no space left on the disk; free some and rerun the same command"
            )
            assert "Traceback" not in done.stderr
            assert not list(disk.rglob("*.tmp"))
            subprocess.run(["mount", "-o", "remount,size=90m", str(disk)], check=True)
            subprocess.run(words(recordings, disk / "set"), capture_output=True, check=True)
            assert hashes(disk / "set") == hashes(shard_set)
        finally:
            subprocess.run(["umount", str(disk)], check=True)

    def test_awkward_paths(self, recordings, shard_set, tmp_path):
        data = tmp_path / "Füße & 脑 (1)"
        data.symlink_to(recordings)
        out = tmp_path / "a b" / "ß 'quoted'"
        run(Render(data=data, out=out, samples_per_shard=16))
        assert hashes(out) == hashes(shard_set)

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting read-only takes root")
    def test_a_read_only_input_folder(self, recordings, shard_set, tmp_path):
        data = tmp_path / "data"
        data.mkdir()
        if subprocess.run(["mount", "--bind", str(recordings), str(data)], check=False).returncode:
            pytest.skip("this machine mounts no folder on another")
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(data)], check=True)
            with pytest.raises(OSError, match="Read-only"):
                (data / "probe").touch()
            run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
            assert hashes(tmp_path / "set") == hashes(shard_set)
            assert list(find_faults(tmp_path / "set", labels=read_labels(data / "train.csv"))) == []
        finally:
            subprocess.run(["umount", str(data)], check=True)

    def test_fewer_files_may_be_open_than_there_are_recordings(self, recordings, shard_set, tmp_path):
        assert len(list(recordings.rglob("*.parquet"))) >= 24
        limited = ["bash", "-c", 'ulimit -n 24 && exec "$@"', "-", *words(recordings, tmp_path / "limited")]
        done = subprocess.run(limited, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert hashes(tmp_path / "limited") == hashes(shard_set)

    def test_the_rebuild_script(self, recordings, made, larger_shards, repository):
        script = repository / "scripts/rebuild_shards.sh"
        environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        bare = subprocess.run([script], capture_output=True, text=True, check=False)
        assert (bare.returncode, bare.stderr.splitlines()[0].split()[0]) == (2, "usage:")
        command = [script, recordings, made, "--samples_per_shard", "24"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert hashes(made) == hashes(larger_shards)
