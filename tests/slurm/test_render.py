"""Four slices of a render array, and the job that depends on them, make the set that one process makes."""

import hashlib
import signal

import pytest

from hms_dist.rendering.render import Render, run

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(1200)]


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_an_array_of_slices_makes_the_same_tars_as_one_process(up, recordings, tmp_path):
    logs = tmp_path / "logs"
    render = up.submit("render", logs, recordings, tmp_path / "set", "--samples_per_shard", 8)
    finish = up.submit("finish", logs, tmp_path / "set", sbatch=(f"--dependency=afterok:{render}",))
    run(Render(data=recordings, out=tmp_path / "alone", samples_per_shard=8))
    up.end(finish, logs)
    assert all(up.show(f"{render}_{task}")["JobState"] == "COMPLETED" for task in range(4))
    assert hashes(tmp_path / "set") == hashes(tmp_path / "alone")
    assert len(list((tmp_path / "set").glob("*.tar"))) > 4


def test_a_warned_slice_goes_back_into_the_queue_and_ends_whole(up, recordings, shard_set, tmp_path):
    logs = tmp_path / "logs"
    render = up.submit("render", logs, recordings, tmp_path / "set", "--samples_per_shard", 16, render__slices=1)
    up.wait((tmp_path / "set/.parts").exists, logs)
    jobs = up.processes(SLURM_ARRAY_JOB_ID=render)
    (rendering,) = [pid for pid in jobs if b"render" in up.command_line(pid).split(b"\0")]
    with up.asleep(rendering):
        up.call("scancel", "--signal=USR1", "--batch", f"{render}_0")
        up.wait(lambda: up.awaits(rendering, signal.SIGTERM), logs)
    found = up.end(f"{render}_0", logs)
    assert found["Restarts"] == "1"
    assert hashes(tmp_path / "set") == hashes(shard_set)
