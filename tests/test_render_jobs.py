"""The shard factory under fire: killed, stopped, sliced, doubled, starved; the bytes stay the same."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_dist import claims
from hms_dist.cli import main
from hms_dist.errors import UserError
from hms_dist.labels import read_labels
from hms_dist.render import Render, run
from hms_dist.shards import finish
from hms_dist.shards.index import read_index, read_manifest
from hms_dist.shards.sets import making_of
from hms_dist.shards.verify import find_faults
from hms_dist.shards.writer import claim_path


def hashes(folder, pattern="*"):
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob(pattern) if p.is_file()}


def words(data, out, *more):
    return [sys.executable, "-m", "hms_dist", "render", "--data", str(data), "--out", str(out),
            "--samples_per_shard", "16", *more]  # fmt: skip


def start(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def made_so_far(out):
    return len(list((out / ".parts").glob("*.parquet"))) if (out / ".parts").exists() else 0


def alive(path):
    owner = claims.read_owner(path)
    return owner is not None and os.path.exists(f"/proc/{owner.pid}")


def ended(pid):
    """Whether a process is gone, or waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition, process, limit_s=60):
    began = time.monotonic()
    while not condition() and process.poll() is None and time.monotonic() - began < limit_s:
        time.sleep(0.01)


class TestSlices:
    """Jobs that share a set."""

    def test_slices_and_the_last_one_finishes(self, recordings, shard_set, tmp_path):
        out = tmp_path / "set"
        for number in (2, 0, 1):
            run(Render(data=recordings, out=out, samples_per_shard=16, job=f"{number}/3"))
            assert (out / "manifest.json").exists() == (number == 1)
        assert hashes(out) == hashes(shard_set)
        assert not (out / ".parts").exists()

    def test_finish_completes_what_slices_left(self, recordings, shard_set, tmp_path, capsys):
        out = tmp_path / "set"
        run(Render(data=recordings, out=out, samples_per_shard=16, job="0/2"))
        assert main(["finish", "--out", str(out)]) == 2
        assert "shards are missing; run render" in capsys.readouterr().err
        run(Render(data=recordings, out=out, samples_per_shard=16, job="1/2"))
        assert main(["finish", "--out", str(out)]) == 0
        assert hashes(out) == hashes(shard_set)

    def test_slices_that_end_at_the_same_moment_finish_it_once(self, recordings, shard_set, tmp_path, monkeypatch):
        """Every slice finds all shards made: one finishes, the others wait for it and leave."""
        out, finished, real = tmp_path / "set", [], finish.finish
        with monkeypatch.context() as patch:
            patch.setattr("hms_dist.render.num_open", lambda *_: 1)
            run(Render(data=recordings, out=out, samples_per_shard=16))
        making = making_of(out)
        monkeypatch.setattr(finish, "finish", lambda *given: finished.append(time.sleep(1)) or real(*given))

        def complete(_):
            with suppress(claims.Taken):  # as a slice does that finds another at it
                finish.complete(out, out, making)

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(complete, range(3)))
        assert len(finished) == 1
        assert hashes(out) == hashes(shard_set)

    def test_nothing_to_finish(self, tmp_path, capsys):
        assert main(["finish", "--out", str(tmp_path)]) == 2
        assert "nothing to finish; run hms-dist render first" in capsys.readouterr().err

    @pytest.mark.parametrize("job", ["1", "4/4", "a/b", "-1/3", "1/", "/3"])
    def test_impossible_slices(self, job, tmp_path):
        with pytest.raises(ValueError, match="job: expected K/N with K from 0 to N - 1"):
            Render(data=tmp_path, out=tmp_path, job=job)

    @pytest.mark.slow
    def test_slices_at_the_same_time(self, recordings, shard_set, tmp_path):
        jobs = [start(*words(recordings, tmp_path / "set", "--job", f"{number}/3")) for number in range(3)]
        for job in jobs:
            _, errors = job.communicate(timeout=120)
            assert job.returncode == 0, errors
        if not (tmp_path / "set/manifest.json").exists():
            assert main(["finish", "--out", str(tmp_path / "set")]) == 0
        assert hashes(tmp_path / "set") == hashes(shard_set)


class TestClaims:
    """A shard has one owner."""

    def foreign(self, out, age_s):
        path = claim_path(out, 0)
        path.parent.mkdir(parents=True)
        path.write_text('{"host": "n7", "machine": "x", "pid": 1, "job": "88_2", "nonce": "n"}')
        then = time.time() - age_s
        os.utime(path, (then, then))
        return path

    def test_a_living_owner_is_refused_and_named(self, recordings, tmp_path, monkeypatch):
        path = self.foreign(tmp_path / "set", 0)
        beating = subprocess.Popen(
            [sys.executable, "-c", f"import os, time\nwhile True: os.utime({str(path)!r}); time.sleep(0.5)"]
        )
        try:
            with pytest.raises(
                UserError, match=r"shard 0: process 1 on n7, job 88_2 is at work on it; wait for that job"
            ):
                run(Render(data=recordings, out=tmp_path / "set", samples_per_shard=16))
        finally:
            beating.kill()
            beating.wait()
        assert made_so_far(tmp_path / "set") == len(read_index_of(recordings)) // 16 - (
            len(read_index_of(recordings)) % 16 == 0
        )

    def test_a_dead_owner_is_replaced_when_its_heart_has_stopped(self, recordings, shard_set, tmp_path, monkeypatch):
        monkeypatch.setattr(claims, "DEAD_AFTER_S", 3.0)
        self.foreign(tmp_path / "set", 0)
        run(Render(data=recordings, out=tmp_path / "set", samples_per_shard=16))
        assert hashes(tmp_path / "set") == hashes(shard_set)


def read_index_of(recordings):
    return pd.read_csv(recordings / "train.csv")


class TestStop:
    """Signals and kills."""

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_signals_end_it_soon_and_cleanly(self, recordings, shard_set, tmp_path, number, workers):
        out = tmp_path / "set"
        process = start(*words(recordings, out, "--workers", str(workers)))
        wait_until(lambda: made_so_far(out) or claim_path(out, 0).exists(), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1, errors
        assert made_so_far(out) < -(-len(read_index_of(recordings)) // 16)
        assert errors.splitlines()[-1] == "hms-dist render: stopped; rerun the same command to go on"
        assert "Traceback" not in errors
        assert not list(out.rglob("*.tmp"))
        assert not any(alive(path) for path in out.rglob("*.claim"))
        run(Render(data=recordings, out=out, samples_per_shard=16))
        assert hashes(out) == hashes(shard_set)

    @pytest.mark.slow
    def test_killed_at_twenty_random_moments(self, recordings, shard_set, tmp_path):
        rng = np.random.default_rng()
        out = tmp_path / "set"
        for _ in range(20):
            if (out / "manifest.json").exists():
                assert hashes(out) == hashes(shard_set)
                shutil.rmtree(out)
            process = start(*words(recordings, out, "--workers", str(rng.integers(1, 3))))
            wait_until((out / ".parts").exists, process)
            time.sleep(rng.uniform(0, 3))
            process.kill()
            process.communicate(timeout=30)  # at once: a worker that outlives it would hold the pipe
        final = start(*words(recordings, out))
        _, errors = final.communicate(timeout=120)
        assert final.returncode == 0, errors
        assert hashes(out) == hashes(shard_set)

    @pytest.mark.slow
    def test_workers_die_with_their_parent(self, recordings, tmp_path):
        process = start(*words(recordings, tmp_path / "set", "--workers", "2"))
        wait_until(claim_path(tmp_path / "set", 0).exists, process)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        process.kill()
        process.communicate()
        until = time.monotonic() + 60
        while not all(map(ended, children)) and time.monotonic() < until:
            time.sleep(0.1)
        assert children
        assert all(map(ended, children))


class TestBadRows:
    """Rows that cannot be rendered."""

    @pytest.fixture
    def spoilt(self, recordings, tmp_path):
        """A copy in which one EEG is cut short: all its rows are bad."""
        data = shutil.copytree(recordings, tmp_path / "data")
        table = pd.read_csv(data / "train.csv")
        number = table["eeg_id"].iloc[-1]
        (data / f"train_eegs/{number}.parquet").write_bytes(b"PAR1 but no more")
        return data, table[table["eeg_id"] == number]

    def test_fail_says_every_bad_row_and_goes_on_after_a_mend(self, recordings, shard_set, spoilt, tmp_path, caplog):
        data, bad = spoilt
        with pytest.raises(UserError, match=r"train.csv: row \d+: .*parquet"):
            run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        assert len([r for r in caplog.records if r.levelname == "WARNING"]) <= len(bad)
        shutil.copy(recordings / f"train_eegs/{bad['eeg_id'].iloc[0]}.parquet", data / "train_eegs")
        run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        assert hashes(tmp_path / "set") == hashes(shard_set)

    def test_skip_keeps_account_of_them(self, spoilt, tmp_path):
        data, bad = spoilt
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

    def test_too_many_fail_all_the_same(self, spoilt, tmp_path):
        with pytest.raises(UserError, match=r"rows rejected, more than max_rejected_share 0.01; the first: "):
            run(Render(data=spoilt[0], out=tmp_path / "set", samples_per_shard=16, on_error="skip"))
        assert not (tmp_path / "set/manifest.json").exists()


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

    def test_a_changed_recording_redoes_its_shards_only(self, data, shard_set, tmp_path, monkeypatch):
        out = tmp_path / "set"
        command = {"data": data, "out": out, "samples_per_shard": 16}
        run(Render(**command))
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

    def test_a_touched_but_equal_recording_is_no_change(self, data, shard_set, tmp_path):
        run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        for path in (data / "train_eegs").iterdir():
            os.utime(path, (time.time() + 100, time.time() + 100))
        run(Render(data=data, out=tmp_path / "set", samples_per_shard=16))
        assert hashes(tmp_path / "set") == hashes(shard_set)

    def test_old_tars_stay_valid_until_the_new_set_stands(self, data, tmp_path, monkeypatch):
        out = tmp_path / "set"
        run(Render(data=data, out=out, samples_per_shard=16))
        before = hashes(out)
        run(Render(data=data, out=out, samples_per_shard=24, rebuild=True, job="0/2"))
        assert hashes(out) == before
        assert list(find_faults(out)) == []
        run(Render(data=data, out=out, samples_per_shard=24, rebuild=True, job="1/2"))
        run(Render(data=data, out=tmp_path / "fresh", samples_per_shard=24))
        assert hashes(out) == hashes(tmp_path / "fresh")
        assert not (out / ".next").exists()

    @pytest.mark.parametrize("moved", [0, 1, 3])
    def test_a_move_cut_short_goes_on(self, data, tmp_path, moved, monkeypatch):
        from hms_dist.shards import sets

        out = tmp_path / "set"
        run(Render(data=data, out=out, samples_per_shard=16))
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
        run(Render(data=data, out=out, samples_per_shard=24))
        run(Render(data=data, out=tmp_path / "fresh", samples_per_shard=24))
        assert hashes(out) == hashes(tmp_path / "fresh")


class TestResources:
    """Disks and paths."""

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
    def test_a_full_disk_is_said_and_a_rerun_goes_on(self, recordings, shard_set, tmp_path):
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

    def test_the_rebuild_script(self, recordings, tmp_path, repository):
        script = repository / "scripts/rebuild_shards.sh"
        environment = {**os.environ, "PATH": f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"}
        bare = subprocess.run([script], capture_output=True, text=True, check=False)
        assert (bare.returncode, bare.stderr.splitlines()[0].split()[0]) == (2, "usage:")
        out = tmp_path / "set"
        run(Render(data=recordings, out=out, samples_per_shard=16))
        command = [script, recordings, out, "--samples_per_shard", "24"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        run(Render(data=recordings, out=tmp_path / "fresh", samples_per_shard=24))
        assert hashes(out) == hashes(tmp_path / "fresh")
