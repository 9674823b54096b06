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

import pandas as pd
import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.jobs import lease
from hms_dist.rendering import finish
from hms_dist.rendering.build_spec import build_spec_of
from hms_dist.rendering.render import Render, run
from hms_dist.shards.writer import lease_path


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
    owner = lease.read_owner(path)
    return owner is not None and os.path.exists(f"/proc/{owner.pid}")


def wait_until(condition, process, limit_s=240):
    began = time.monotonic()
    while not condition() and process.poll() is None:
        assert time.monotonic() - began < limit_s
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
            patch.setattr("hms_dist.rendering.render.num_open", lambda *_: 1)
            run(Render(data=recordings, out=out, samples_per_shard=16))
        build_spec = build_spec_of(out)
        monkeypatch.setattr(finish, "finish", lambda *given: finished.append(time.sleep(1)) or real(*given))

        def complete(_):
            with suppress(lease.LeaseHeld):  # as a slice does that finds another at it
                finish.complete(out, out, build_spec)

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
            _, errors = job.communicate(timeout=240)
            assert job.returncode == 0, errors
        if not (tmp_path / "set/manifest.json").exists():
            assert main(["finish", "--out", str(tmp_path / "set")]) == 0
        assert hashes(tmp_path / "set") == hashes(shard_set)


class TestClaims:
    """A shard has one owner."""

    def foreign(self, out, age_s):
        path = lease_path(out, 0)
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
                UserError, match=r"shard 0: process 1 on n7, job 88_2 is working on it; wait for that job"
            ):
                run(Render(data=recordings, out=tmp_path / "set", samples_per_shard=16))
        finally:
            beating.kill()
            beating.wait()
        assert made_so_far(tmp_path / "set") == len(read_index_of(recordings)) // 16 - (
            len(read_index_of(recordings)) % 16 == 0
        )

    def test_a_dead_owner_is_replaced_when_its_heart_has_stopped(self, recordings, shard_set, tmp_path, monkeypatch):
        monkeypatch.setattr(lease, "DEAD_AFTER_S", 3.0)
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
        wait_until(lambda: made_so_far(out) or lease_path(out, 0).exists(), process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 1, errors
        assert made_so_far(out) < -(-len(read_index_of(recordings)) // 16)
        assert errors.splitlines()[-1] == "hms-dist render: stopped; rerun the same command to continue"
        assert "Traceback" not in errors
        assert not list(out.rglob("*.tmp"))
        assert not any(alive(path) for path in out.rglob("*.claim"))
        run(Render(data=recordings, out=out, samples_per_shard=16))
        assert hashes(out) == hashes(shard_set)

    @pytest.mark.slow
    def test_killed_at_ten_random_moments(self, recordings, shard_set, tmp_path, rng):
        out = tmp_path / "set"
        for _ in range(10):
            if (out / "manifest.json").exists():
                assert hashes(out) == hashes(shard_set)
                shutil.rmtree(out)
            process = start(*words(recordings, out, "--workers", str(rng.integers(1, 3))))
            wait_until((out / ".parts").exists, process)
            time.sleep(rng.uniform(0, 3))
            process.kill()
            process.communicate(timeout=240)  # at once: a worker that outlives it would hold the pipe
        final = start(*words(recordings, out))
        _, errors = final.communicate(timeout=240)
        assert final.returncode == 0, errors
        assert hashes(out) == hashes(shard_set)

    @pytest.mark.slow
    def test_workers_die_with_their_parent(self, recordings, tmp_path, ended):
        process = start(*words(recordings, tmp_path / "set", "--workers", "2"))
        wait_until(lease_path(tmp_path / "set", 0).exists, process)
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        process.kill()
        process.communicate()
        until = time.monotonic() + 240
        while not all(map(ended, children)) and time.monotonic() < until:
            time.sleep(0.1)
        assert children
        assert all(map(ended, children))
